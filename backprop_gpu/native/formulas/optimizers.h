// Optimizers, one entry of the flat vector at a time, named as in maths/optimizers.py where the sources are.
//
// s: the step's scalars, as maths' ``scalars`` gives them. c: constants b1, 1 - b1, b2, 1 - b2, epsilon (momentum and
// rho stand in b1's place), each rounded once from float64. SLOTS: how many state vectors there are; SCALARS: how many
// of s.
#pragma once
#include "real.h"

namespace optimizers {
namespace {

// min(1, max_norm / norm), norm = root * scale: the norm may be too large for its type, the factor is not.
template <class T> FORMULA T clip_factor(T norm, T max_norm, double root, double scale) {
    if (!(norm > max_norm)) return T(1);
    return norm < infinity<T>() ? max_norm / norm : T(double(max_norm) / root / scale);
}

struct Sgd {
    static constexpr int SLOTS = 0, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T&, T&, T&, const T* s, const T*) { theta -= s[0] * g; }
};

struct Momentum {
    static constexpr int SLOTS = 1, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T& v, T&, T&, const T* s, const T* c) {
        v = c[0] * v - s[0] * g;
        theta += v;
    }
};

struct MomentumAverage {
    static constexpr int SLOTS = 1, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T& v, T&, T&, const T* s, const T* c) {
        v = c[0] * v + c[1] * g;
        theta -= s[0] * v;
    }
};

struct Nesterov {
    static constexpr int SLOTS = 1, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T& v, T&, T&, const T* s, const T* c) {
        T d = s[0] * g;
        v = c[0] * v - d;
        theta += c[0] * v - d;
    }
};

struct RmsProp {
    static constexpr int SLOTS = 1, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T&, T&, const T* s, const T* c) {
        m = c[0] * m + c[1] * (g * g);
        theta -= s[0] * g / (sqrt(m) + c[4]);
    }
};

struct Adagrad {
    static constexpr int SLOTS = 1, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T&, T&, const T* s, const T* c) {
        m += g * g;
        theta -= s[0] * g / (sqrt(m) + c[4]);
    }
};

template <class T> FORMULA void moments(T g, T& m, T& v, const T* c) {
    m = c[0] * m + c[1] * g;
    v = c[2] * v + c[3] * (g * g);
}

struct Adam {
    static constexpr int SLOTS = 2, SCALARS = 2;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T& v, T&, const T* s, const T* c) {
        moments(g, m, v, c);
        theta -= s[0] * m / (s[1] * sqrt(v) + c[4]);
    }
};

struct AdamW {
    static constexpr int SLOTS = 2, SCALARS = 3;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T& v, T&, const T* s, const T* c) {
        moments(g, m, v, c);
        theta = s[2] * theta - s[0] * m / (s[1] * sqrt(v) + c[4]);
    }
};

struct AmsGrad {
    static constexpr int SLOTS = 3, SCALARS = 2;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T& v, T& v_max, const T* s, const T* c) {
        moments(g, m, v, c);
        v_max = maximum(v_max, v);
        theta -= s[0] * m / (s[1] * sqrt(v_max) + c[4]);
    }
};

struct Lion {  // without decay
    static constexpr int SLOTS = 1, SCALARS = 1;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T&, T&, const T* s, const T* c) {
        T direction = sign(c[0] * m + c[1] * g);
        m = c[2] * m + c[3] * g;
        theta -= s[0] * direction;
    }
};

struct LionDecaying {
    static constexpr int SLOTS = 1, SCALARS = 2;
    template <class T> static FORMULA void step(T& theta, T g, T& m, T&, T&, const T* s, const T* c) {
        T direction = sign(c[0] * m + c[1] * g);
        m = c[2] * m + c[3] * g;
        theta = s[1] * theta - s[0] * direction;
    }
};

}  // namespace
}  // namespace optimizers
