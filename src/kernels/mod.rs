//! How it is computed: synthesis, analysis, gradients with respect to filters, thresholds, one file for each family of operations.
//!
//! | file | what |
//! |---|---|
//! | `dictionary` | synthesis, analysis and the filters' gradient of one layer, as operations on burn's backends |
//! | `product` | matrix products in full `f32`, as an operation on burn's backends |
//! | `few` | products with matrices of which few values are not zero, likewise |
//! | `panels` | products of vectors of which few values are not zero, on the host |
//! | `proximal` | the gradient step with its threshold, and momentum, as operations on burn's backends |
//! | [`threshold`] | soft and hard thresholds as plain tensor operations |
//! | [`convolution`], `batched` | direct convolutions on the host: large signals, batches of small ones |
//! | [`windows`] | layers whose windows share no sample, as matrix products |
//! | [`sparse`] | dictionaries and codes with few non-zeros |
//! | [`correlation`] | inner products of atoms at all shifts |
//! | [`spectrum`] | certified bounds of a dictionary's norm |
//! | `linear_algebra` | least squares on a support |
//! | `cube` | kernels for GPUs: proximal steps, exact products and convolutions, sparse products, whole pursuits |
//! | `simd` | loops compiled for the instruction sets of the machine |
//!
//! They stand on shapes ([`crate::geometry`]) alone. Models, pursuits and learning call them; a program has no need to.

#[cfg(feature = "flex")]
mod batched;
pub mod convolution;
pub mod correlation;
#[cfg(feature = "cube")]
pub(crate) mod cube;
pub(crate) mod dictionary;
#[cfg_attr(not(feature = "autodiff"), allow(dead_code, reason = "most of it serves gradients"))]
pub(crate) mod few;
pub(crate) mod linear_algebra;
pub(crate) mod panels;
pub(crate) mod product;
pub(crate) mod proximal;
pub(crate) mod simd;
pub mod sparse;
pub mod spectrum;
pub mod threshold;
pub mod windows;
