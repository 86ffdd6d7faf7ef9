//! Three pursuits on one signal: `cargo run --release --example pursuits`.

use burn::tensor::{Distribution, Tensor};
use mlcsc::prelude::*;
use mlcsc::pursuit::Algorithm;
use mlcsc::pursuit::LayeredBasisPursuitConfig;

fn main() -> Result<()> {
    let device = device::named(None)?;
    let model = Preset::Small.model().init_random(1, &device)?;
    let signal = Tensor::random([1, 1, 28, 28], Distribution::Normal(0.0, 1.0), &device);
    let pursuits = [
        PursuitConfig::BasisPursuit { algorithm: Algorithm::Auto, basis: BasisPursuitConfig::default() },
        PursuitConfig::OrthogonalMatchingPursuit(OrthogonalMatchingPursuitConfig::new(20)),
        PursuitConfig::LayeredBasisPursuit(LayeredBasisPursuitConfig::default()),
    ];
    println!("{:>32}  non-zeros  ½‖y − Dγ‖²  relative gap", "algorithm");
    for pursuit in pursuits {
        let config = CoderConfig::new(&CodingDefaults::default()).with_pursuit(pursuit);
        let coder = config.init(&model)?;
        let codes = coder.encode(signal.clone())?;
        let report = &codes.reports()[0];
        let (nonzeros, error, gap) = (report.nonzeros, report.data_term, report.relative_gap);
        println!("{:>32}  {nonzeros:9}  {error:10.3}  {gap:.1e}", coder.algorithm());
    }
    Ok(())
}
