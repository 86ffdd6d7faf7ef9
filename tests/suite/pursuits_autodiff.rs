//! Unrolled pursuits as differentiable functions; run with `--features autodiff`.

use crate::common;

use burn::tensor::Device;
use common::{Case, host, on_every_device, rng, tensor};
use mlcsc::model::Application;
use mlcsc::model::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::pursuit::{
    Acceleration, Lambda, MultiLayerProximalGradientConfig, Problem, ProximalGradientConfig, Unrolled,
};

/// Two layers, rectangular: 160 code values for 110 signal values.
fn case() -> Case {
    let layers = vec![LayerShape::new(5, Pair([3, 4]), Pair([2, 1])), LayerShape::new(8, Pair([2, 3]), 1)];
    Case::random(SignalShape::new(1, 11, 10), layers, 3)
}

/// Derivatives of ½‖unrolled codes‖² with respect to signals, and to filters, against central differences.
#[test]
fn unrolled_pursuits_are_differentiable() {
    on_every_device(|device| {
        if device.small {
            return;
        }
        let case = case();
        let values = case.signals(1);
        let gradient = MultiLayerProximalGradientConfig::new(Acceleration::Ista).init().unwrap();
        let proximal = ProximalGradientConfig::new(Acceleration::Fista).init().unwrap();
        for (pursuit, shallower) in [(&proximal as &dyn Unrolled, None), (&gradient, Some(Lambda::Absolute(0.02)))] {
            let run = |case: &Case, values: &[f32], device: &Device| {
                let model = case.model(device);
                let operator = model.operator(case.config.signal, Application::Cascade).unwrap();
                let signals = tensor(values, case.config.signal.batched(1), device);
                let signals = if device.is_autodiff() { signals.require_grad() } else { signals };
                let mut asked =
                    Problem::new(&operator, signals.clone()).unwrap().with_lambda(Lambda::Absolute(0.4)).unwrap();
                if let Some(shallower) = &shallower {
                    asked = asked.with_shallower_lambda(vec![shallower.clone()]).unwrap();
                }
                // So many that the iterates have settled: the steps, which are constants here, matter no more.
                let codes = pursuit.unrolled(&asked, 400).unwrap();
                (codes.square().sum() * 0.5, signals, model.filters())
            };
            let (loss, signals, filters) = run(&case, &values, &device.device.clone().autodiff());
            let gradients = loss.backward();
            let along = |gradient: Vec<f32>, direction: &[f32]| -> f64 {
                gradient.iter().zip(direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let direction = common::normals(&mut rng(11), 110);
            let loss_at =
                |case: &Case, values: &[f32]| f64::from(run(case, values, &device.device).0.into_scalar::<f32>());
            // Small enough that no code value comes or goes on the way: there the loss has kinks.
            let h = 4e-4f32;
            let moved = |from: &[f32], direction: &[f32], h: f32| -> Vec<f32> {
                from.iter().zip(direction).map(|(value, d)| value + h * d).collect()
            };
            let difference = (loss_at(&case, &moved(&values, &direction, h))
                - loss_at(&case, &moved(&values, &direction, -h)))
                / (2.0 * f64::from(h));
            let found = along(host(signals.grad(&gradients).unwrap()), &direction);
            println!("{}: signals {found} {difference}", pursuit.name());
            assert!((found - difference).abs() <= 0.01 * difference.abs(), "{}: {found} {difference}", pursuit.name());
            // Steps follow the filters' norms and count as constants. ML-ISTA's fixed point moves with them, so that only the
            // other's derivatives with respect to filters are those of a function that differences can be taken of.
            let filters = if shallower.is_none() { filters } else { Vec::new() };
            for (layer, filters) in filters.iter().enumerate() {
                let direction = common::normals(&mut rng(12), case.filters[layer].len());
                let at = |h: f32| {
                    let mut moved_case = case.clone();
                    moved_case.filters[layer] = moved(&case.filters[layer], &direction, h);
                    loss_at(&moved_case, &values)
                };
                let h = 1e-4f32;
                let difference = (at(h) - at(-h)) / (2.0 * f64::from(h));
                let found = along(host(filters.grad(&gradients).unwrap()), &direction);
                println!("{}: W_{} {found} {difference}", pursuit.name(), layer + 1);
                let what = format!("{} W_{}: {found} {difference}", pursuit.name(), layer + 1);
                assert!((found - difference).abs() <= 0.01 * difference.abs(), "{what}");
            }
        }
    });
}
