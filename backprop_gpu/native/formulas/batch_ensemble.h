// The weights of an ensemble's member, number by number (maths/batch_ensemble.py). The sums over outputs and over inputs are in
// cpu/members.h and cuda/members.cu.
#pragma once
#include "real.h"

namespace batch_ensemble {
namespace {

// W_ij r_j s_i, and of G = dJ/dW_j: the terms G_ij r_j s_i of dW, G_ij W_ij s_i of dr and G_ij W_ij r_j of ds.
template <class T> FORMULA T scaled(T x, T one, T other) { return x * one * other; }

}  // namespace
}  // namespace batch_ensemble
