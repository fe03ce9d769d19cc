"""In the manner of scikit-learn's "Compare Stochastic learning strategies for MLPClassifier"."""

import warnings

from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MinMaxScaler

params = [
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0, "learning_rate_init": 0.2},
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "nesterovs_momentum": True},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.9, "nesterovs_momentum": True},
    {"solver": "adam", "learning_rate_init": 0.01},
]
for name, data in (("iris", datasets.load_iris()), ("circles", datasets.make_circles(noise=0.2, random_state=1))):
    X, y = (data.data, data.target) if name == "iris" else data
    X = MinMaxScaler().fit_transform(X)
    for param in params:
        mlp = MLPClassifier(random_state=0, max_iter=60, **{"learning_rate_init": 0.2, **param})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
            mlp.fit(X, y)
        print("score", mlp.score(X, y))
        print("score", mlp.loss_)
        print("curve", name, len(mlp.loss_curve_))
