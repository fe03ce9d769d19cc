// Every formula by its name in maths/ and its struct: X(name, struct). From these lists the CPU makes its table of
// kernels (cpu/kernels.cpp), CUDA its switches, and Python the names and their ids (backends/formula_ids.py).
#pragma once

#define ACTIVATIONS_FROM_OUTPUT(X) \
    X(identity, Identity) X(relu, Relu) X(leaky_relu, LeakyRelu) X(elu, Elu) X(selu, Selu) X(tanh, Tanh) X(sigmoid, Sigmoid) \
    X(exponential, Exponential)

#define ACTIVATIONS_FROM_INPUT(X) X(gelu, Gelu) X(gelu_tanh, GeluTanh) X(silu, Silu) X(softplus, Softplus) X(mish, Mish)

#define LOSSES(X) \
    X(binary_cross_entropy, BinaryCrossEntropy) X(squared_error, SquaredError) X(absolute_error, AbsoluteError) \
    X(huber, Huber) X(poisson, Poisson) X(quantile, Quantile)

#define OPTIMIZERS(X) \
    X(sgd, Sgd) X(momentum, Momentum) X(momentum_average, MomentumAverage) X(nesterov, Nesterov) X(rmsprop, RmsProp) \
    X(adagrad, Adagrad) X(adam, Adam) X(adamw, AdamW) X(amsgrad, AmsGrad) X(lion, Lion) X(lion_decaying, LionDecaying)

namespace {

#define FORMULA_ID(name, Struct) name##_id,
enum ActivationId { ACTIVATIONS_FROM_OUTPUT(FORMULA_ID) ACTIVATIONS_FROM_INPUT(FORMULA_ID) };
enum LossId { LOSSES(FORMULA_ID) softmax_id };  // softmax_id: the losses that couple outputs
enum OptimizerId { OPTIMIZERS(FORMULA_ID) };

}  // namespace
