//! The integration tests. They are one program, for every other would compile and link all of burn once more.

mod common;

#[cfg(feature = "autodiff")]
mod autoencoder;
mod classify_cli;
mod cli;
mod coherence;
mod compare_cli;
mod data_cli;
#[cfg(feature = "train")]
mod end_to_end;
mod gradient;
mod learning;
#[cfg(feature = "train")]
mod losses_devices;
mod maps_windows;
mod model_file;
#[cfg(feature = "autodiff")]
mod networks;
mod odd_inputs;
mod operator;
mod output_files;
mod pictures_descent;
mod pursuit;
mod pursuit_interruption;
#[cfg(feature = "autodiff")]
mod pursuits_autodiff;
mod pursuits_coherent;
mod pursuits_model;
mod pursuits_problem;
mod pursuits_reference;
mod reference;
mod residual_descent;
#[cfg(feature = "train")]
mod rivals_revived;
#[cfg(unix)]
mod runs_cli;
mod theory;
mod theory_cli;
mod theory_exact;
#[cfg(unix)]
mod train_cli;
