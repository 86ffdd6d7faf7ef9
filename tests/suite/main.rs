//! The integration tests. They are one program, for every other would compile and link all of burn once more.

mod common;

#[cfg(feature = "autodiff")]
mod autoencoder;
mod classify_cli;
mod cli;
mod coherence;
mod compare_cli;
#[cfg(feature = "train")]
mod end_to_end;
mod gradient;
mod learning;
mod model_file;
#[cfg(feature = "autodiff")]
mod networks;
mod operator;
mod pictures_descent;
mod pursuit;
#[cfg(feature = "autodiff")]
mod pursuits_autodiff;
mod pursuits_model;
mod pursuits_problem;
mod pursuits_reference;
mod reference;
mod residual_descent;
mod theory;
mod theory_cli;
#[cfg(unix)]
mod train_cli;
