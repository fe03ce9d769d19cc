// The scaling layer (maths/scaling.py), number by number. The sum over examples is in cpu/input_stage.h and
// cuda/input_stage.cu.
#pragma once
#include "real.h"

namespace scaling {
namespace {

template <class T> FORMULA T forward(T x, T s) { return s * x; }
template <class T> FORMULA T vjp(T dH, T s) { return s * dH; }
template <class T> FORMULA T vjp_scale(T dH, T x) { return dH * x; }  // a term of ds

}  // namespace
}  // namespace scaling
