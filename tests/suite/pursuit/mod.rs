//! Pursuits.

#[cfg(feature = "autodiff")]
mod autodiff;
mod basis;
mod by_windows;
mod coherent;
mod interruption;
mod large;
mod least_squares;
mod nonnegative;
mod pictures;
mod problem;
mod projection;
mod reference;
mod residual_descent;
