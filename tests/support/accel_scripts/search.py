"""A pipeline under GridSearchCV with worker processes, a function of one's own in others, and a model on disk."""

import os
import sys
import tempfile
import warnings

import joblib
import neighbour
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network._multilayer_perceptron import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")


def in_a_worker(seed):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning, module="sklearn")
        return MLPRegressor(hidden_layer_sizes=(8,), max_iter=10, random_state=seed).fit(X, y).score(X, y)


if __name__ == "__main__":
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    net = MLPClassifier((16,), max_iter=15, random_state=0)
    assert isinstance(clone(net), MLPClassifier)
    search = GridSearchCV(Pipeline([("scale", StandardScaler()), ("net", net)]), neighbour.GRID, n_jobs=2, cv=2)
    search.fit(X, y)
    print("best", search.best_params_)
    for score in search.cv_results_["mean_test_score"]:
        print("score", score)
    for score in joblib.Parallel(n_jobs=2)(joblib.delayed(in_a_worker)(seed) for seed in range(2)):
        print("score", score)
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(search.best_estimator_, os.path.join(folder, "model.joblib"))
        print("score", joblib.load(os.path.join(folder, "model.joblib")).score(X, y))
    print("arguments", sys.argv[1:])
