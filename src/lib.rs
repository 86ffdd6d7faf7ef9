//! Multi-Layer Convolutional Sparse Coding: nested sparse representations of signals, and the dictionaries they are made of,
//! on [burn](https://burn.dev)'s tensors.
//!
//! # The model
//!
//! A signal is a sum of a few small patterns (atoms), each placed somewhere; the places and weights of the patterns are
//! again a sum of a few patterns of patterns, and so on:
//!
//! ```text
//! x = D_1 γ_1,   γ_1 = D_2 γ_2,   …,   γ_{L−1} = D_L γ_L        every γ_i sparse
//! ```
//!
//! Each D_i is a set of convolution filters. Only the deepest representation γ_L is free: the others follow from it, and the
//! signal is x = D^(L) γ_L with the *effective dictionary* D^(L) = D_1 D_2 … D_L, whose atoms are whole shapes. Finding γ_L
//! for a signal y is a *pursuit*, here most often basis pursuit:
//!
//! ```text
//! γ_L = argmin ½‖y − D^(L) γ‖² + λ‖γ‖₁
//! ```
//!
//! Learning the dictionaries from signals makes of this a sparse auto-encoder without labels, whose encoder is the pursuit.
//! The model and the way of learning are those of J. Sulam, V. Papyan, Y. Romano and M. Elad, "Multi-Layer Convolutional
//! Sparse Modeling: Pursuit and Dictionary Learning", IEEE Transactions on Signal Processing 66(15), 2018.
//!
//! # The rooms of the house
//!
//! Data walks through the modules in one direction:
//!
//! ```text
//! data ──► pursuit (over model) ──► representations ──► autoencoder | learn | restore | classify | theory | export
//!              └── kernels: how it is computed, on shapes alone
//! ```
//!
//! - [`geometry`]: shapes of signals, codes and layers.
//! - [`data`]: where signals come from: arrays in memory, files, folders of images, MNIST, digits drawn by a generator.
//! - [`model`]: what the dictionaries are: the cascade, the effective dictionary and the ways to apply it.
//! - [`pursuit`]: how a signal becomes representations; each answer carries its duality gap, so that one knows how far it can
//!   be trusted.
//! - [`coder`]: the front door to both: normalise, pursue, undo, in batches.
//! - [`autoencoder`]: the pursuit unrolled into the layers of a network, what all auto-encoders have in common, and what is measured
//!   of them; [`baselines`]: the auto-encoders that the model is compared with.
//! - [`learn`]: how the dictionaries are found, online or end to end, with checkpoints and exact resumption.
//! - [`restore`]: pictures without their noise, and with what is missing in them.
//! - [`classify`]: what codes say about classes: pooled features and a linear classifier.
//! - [`theory`]: when answers are guaranteed.
//! - [`evaluate`]: pursuits side by side, and beside what the theorems promise.
//! - [`export`]: what leaves the program: pictures of filters, codes and arrays that other programs read, pages about runs and results.
//!
//! [`device`] chooses where it is computed, `cli`, behind the feature of that name, is the command-line program on top, and every mistake
//! that comes from
//! outside is an [`Error`] that says what was expected and what came.
//!
//! # Example
//!
//! Learns a small model from digits drawn by a generator and codes one that it has never seen:
//!
//! ```
//! use burn::tensor::{Tensor, TensorData};
//! use mlcsc::learn::{DictionaryLearner, TrainConfig};
//! use mlcsc::model::{OperatorForm, preset::Preset};
//! use mlcsc::pursuit::{BasisPursuitConfig, Lambda};
//! use mlcsc::{data, device};
//!
//! # fn main() -> mlcsc::Result<()> {
//! let device = device::named(None)?; // the first compiled in, or what BURN_DEVICE says
//! let mut config = TrainConfig::preset(Preset::Small); // three layers for 28×28 pixels
//! config.data.count = Some(240);
//! # config.learning.epochs = 1;
//! # config.learning.initialization.steps = 2;
//! let digits = data::open(&config.data)?;
//! let mut learner = DictionaryLearner::start(&config, &*digits.train, &device, |_, _| Ok(()))?;
//! for _ in 0..learner.steps() {
//!     learner.step(&*digits.train)?;
//! }
//!
//! let operator = learner.model()?.operator(digits.test.shape(), OperatorForm::Auto)?;
//! let mut pixels = vec![0.0; operator.signal().len()];
//! digits.test.read(&[0], &mut pixels)?;
//! let digit = Tensor::from_data(TensorData::new(pixels, operator.signal().batched(1)), &device);
//! let pursuit = BasisPursuitConfig::default().init_for(&operator)?;
//! let found = pursuit.pursue(&operator, digit, &Lambda::Relative(0.1))?; // λ is a tenth of λ_max
//! let representations = found.representations(&operator); // γ_1, γ_2, γ_3
//! let reconstruction = operator.synthesize(found.codes); // x = D^(3) γ_3
//! println!("{} non-zeros, gap {:.0e}", found.reports[0].nonzeros, found.reports[0].relative_gap);
//! # assert_eq!(representations[1].dims(), [1, 48, 7, 7]);
//! # assert_eq!(reconstruction.dims(), [1, 1, 28, 28]);
//! # assert!(found.reports[0].nonzeros > 0 && found.reports[0].relative_gap <= 1e-4);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `train` (default) adds training by gradients, with burn's optimizers and its learner, and turns `autodiff` on, which lets
//! gradients through pursuits and auto-encoders; `tui` adds burn's dashboard. Every other feature adds a backend; the program chooses
//! among those compiled in with `--device` or the variable `BURN_DEVICE`,
//! a library user with [`device::named`]. Each forwards to burn's feature of the same name.
//!
//! | feature | computes on | needs |
//! |---|---|---|
//! | `flex` (default) | CPU, pure Rust | nothing |
//! | `ndarray` | CPU; upstream calls it deprecated | nothing |
//! | `wgpu` | GPU by WebGPU: Vulkan, Metal or Direct3D | the GPU's driver |
//! | `vulkan` | GPU by Vulkan | the GPU's driver |
//! | `metal` | GPU of a Mac | macOS |
//! | `cuda` | NVIDIA GPU | CUDA when it runs, a download of LLVM while it is built |
//! | `rocm` | AMD GPU | ROCm, a download of LLVM while it is built |
//! | `cpu` | CPU by CubeCL | a download of LLVM while it is built |
//! | `tch` | CPU by LibTorch | LibTorch |
//!
//! burn's `fusion` is off. Where another package of the same build switches it on, or burn's default features, switch on `fusion` here too: the
//! kernels for GPUs have to know of it. Pursuits then give the same codes; training end to end on a GPU is refused, because steps of burn 0.22.1's
//! optimizers come out wrong with it for parameters of some shapes.

// Formulas are written in Unicode, in running text and in blocks of code: they render wherever the source is read, and need no
// script from elsewhere.

pub mod autoencoder;
pub mod baselines;
pub mod classify;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod coder;
pub mod data;
pub mod device;
pub mod error;
pub mod evaluate;
mod exact;
pub mod export;
pub mod files;
pub mod foreign;
pub mod geometry;
mod json;
#[doc(hidden)]
pub mod kernels;
pub mod learn;
pub mod model;
pub mod names;
pub mod prelude;
pub mod pursuit;
mod random;
pub mod restore;
mod text;
pub mod theory;

pub use coder::{Coder, CoderConfig, Codes};
pub use error::{Error, Result};

/// The README's code is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
