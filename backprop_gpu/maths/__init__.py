"""The formulas: pure functions of arrays and a namespace ``xp``, every backward directly under its forward.

Only functions of the Python array API standard (2024.12) are used, so that ``xp`` may be numpy, cupy,
array_api_strict, torch through array-api-compat, or the complex-step namespace of ``gradcheck``. Comparisons and
``abs``, ``maximum``, ``minimum`` are always called through ``xp``, never as operators: the complex-step namespace
gives them the meaning that a derivative needs.
"""
