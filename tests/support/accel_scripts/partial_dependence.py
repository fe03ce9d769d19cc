"""In the manner of scikit-learn's "Partial Dependence and Individual Conditional Expectation Plots"."""

from sklearn.datasets import make_friedman1
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

X, y = make_friedman1(600, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.1, random_state=0)
mlp_model = make_pipeline(
    QuantileTransformer(n_quantiles=100, random_state=0),
    MLPRegressor(
        hidden_layer_sizes=(30, 15), learning_rate_init=0.01, early_stopping=True, random_state=0, n_iter_no_change=5
    ),
)
mlp_model.fit(X_train, y_train)
print("score", mlp_model.score(X_test, y_test))
found = partial_dependence(mlp_model, X_train, [3], grid_resolution=5, kind="both")
print("grid", found["individual"].shape)
for value in found["average"][0]:
    print("score", value / 25)
importance = permutation_importance(mlp_model, X_test, y_test, n_repeats=2, random_state=0)
print("most important", importance.importances_mean.argmax())
