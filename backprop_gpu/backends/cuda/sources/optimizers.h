// Optimizers (maths/optimizers.py), one entry of the flat vector at a time.
// s: the step's scalars, in the order of Optimizer.scalars. c: constants, as codes.rule() lists them.

struct Entry {
    real theta, first, second, third;  // the parameter and its slots, in the order of Optimizer.slots
};

struct Rule {
    real lr, correction, shrink;        // s[0]; s[1] of the Adam family; what theta is multiplied with first
    real b1, r1, b2, r2, epsilon;       // a decay rate and 1 minus it, twice
};

BOTH void moments(const Rule& r, Entry& e, real g) {
    e.first = r.b1 * e.first + r.r1 * g;
    e.second = r.b2 * e.second + r.r2 * (g * g);
}

BOTH void descend(integer code, const Rule& r, Entry& e, real g) {
    switch (code) {
        case MOMENTUM:
            e.first = r.b1 * e.first - r.lr * g;
            e.theta += e.first;
            break;
        case MOMENTUM_AVERAGE:
            e.first = r.b1 * e.first + r.r1 * g;
            e.theta -= r.lr * e.first;
            break;
        case NESTEROV: {
            real step = r.lr * g;
            e.first = r.b1 * e.first - step;
            e.theta += r.b1 * e.first - step;
            break;
        }
        case RMSPROP:
            e.first = r.b1 * e.first + r.r1 * (g * g);
            e.theta -= r.lr * g / (sqrt(e.first) + r.epsilon);
            break;
        case ADAGRAD:
            e.first += g * g;
            e.theta -= r.lr * g / (sqrt(e.first) + r.epsilon);
            break;
        case ADAM:  // and AdamW, which shrinks
            moments(r, e, g);
            e.theta = r.shrink * e.theta - r.lr * e.first / (r.correction * sqrt(e.second) + r.epsilon);
            break;
        case AMSGRAD:
            moments(r, e, g);
            e.third = maximum(e.third, e.second);
            e.theta -= r.lr * e.first / (r.correction * sqrt(e.third) + r.epsilon);
            break;
        case LION: {
            real direction = sign(r.b1 * e.first + r.r1 * g);
            e.first = r.b2 * e.first + r.r2 * g;
            e.theta = r.shrink * e.theta - r.lr * direction;
            break;
        }
        default:  // SGD
            e.theta -= r.lr * g;
    }
}
