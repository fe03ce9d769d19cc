// Losses from logits (maths/losses.py): one output's term of L, and its derivative directly under it. The caller sums
// the terms over outputs, or averages them for a regression loss. p: threshold of huber. y of a smoothed binary label is
// (1 - s) y + s / 2.

BOTH real loss_term(integer code, real p, real z, real y) {
    real d = z - y, size = fabs(d);
    switch (code) {
        // z y is taken from the maximum first: for a large logit on the right side they cancel.
        case BINARY_CROSS_ENTROPY: return (maximum(z, real(0)) - z * y) + log1p(exp(-fabs(z)));
        case ABSOLUTE_ERROR: return size;
        case HUBER: {
            real c = minimum(size, p);
            return c * (size - real(0.5) * c);
        }
        case POISSON: return exp(z) - y * z + (y * log(maximum(y, smallest_normal())) - y);
        default: return real(0.5) * (d * d);  // SQUARED_ERROR
    }
}

BOTH real loss_slope(integer code, real p, real z, real y) {
    switch (code) {
        case BINARY_CROSS_ENTROPY: return sigmoid(z) - y;
        case ABSOLUTE_ERROR: return sign(z - y);
        case HUBER: return minimum(maximum(z - y, -p), p);
        case POISSON: return exp(z) - y;
        default: return z - y;  // SQUARED_ERROR
    }
}

// Categorical cross-entropy: L = sum_k T (log sum_j e^S - S), dL/dZ = AL sum_k T - T, with S = Z - max Z and the
// smoothed target T = (1 - s) Y + s / n, ``rest`` = 1 - s and ``share`` = s / n.
BOTH real smoothed(real rest, real share, real y) { return rest * y + share; }

BOTH real cross_entropy_term(real target, real log_sum, real shifted) { return target * (log_sum - shifted); }

BOTH real cross_entropy_slope(real target, real targets, real sum, real shifted) {
    return exp(shifted) / sum * targets - target;
}
