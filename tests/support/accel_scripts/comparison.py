"""In the manner of scikit-learn's "Classifier comparison"."""

import sklearn.neural_network as nn
from sklearn.datasets import make_moons
from sklearn.ensemble import AdaBoostClassifier, VotingClassifier
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

X, y = make_moons(noise=0.3, n_samples=120, random_state=0)
classifiers = {
    "tree": DecisionTreeClassifier(max_depth=5, random_state=42),
    "net": nn.MLPClassifier(alpha=1, max_iter=300, random_state=42, tol=1e-3),
    "boost": AdaBoostClassifier(random_state=42, n_estimators=10),
    "bayes": GaussianNB(),
}
classifiers["vote"] = VotingClassifier(list(classifiers.items()), voting="soft")
for clf in classifiers.values():
    for score in cross_val_score(make_pipeline(StandardScaler(), clf), X, y, cv=2):
        print("score", score)
