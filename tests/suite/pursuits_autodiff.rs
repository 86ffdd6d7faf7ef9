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
                (codes, signals, model.filters())
            };
            let (codes, signals, filters) = run(&case, &values, &device.device.clone().autodiff());
            let gradients = (codes.square().sum() * 0.5).backward();
            let along = |gradient: &[f32], direction: &[f32]| -> f64 {
                gradient.iter().zip(direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            // Along normally distributed directions derivatives are as large as the gradient is long, on average. One that happens to
            // be smaller is not rounded less: iterates in `f32` stand still some 3e-6 before they would in `f64`, which differences
            // over 2h see as up to 0.3% of that length.
            let agree = |what: &str, gradient: &[f32], direction: &[f32], difference: f64| {
                let (found, length) = (along(gradient, direction), along(gradient, gradient).sqrt());
                println!("{what}: {found} {difference}, gradient {length}");
                assert!((found - difference).abs() <= 0.005 * length, "{what}: {found} {difference}");
            };
            let direction = common::normals(&mut rng(11), 110);
            // Summed in `f64`: what a sum in `f32` rounds away is a hundredth of the small differences below.
            let loss_at = |case: &Case, values: &[f32]| -> f64 {
                host(run(case, values, &device.device).0).iter().map(|&code| 0.5 * f64::from(code).powi(2)).sum()
            };
            // Small enough that no code value comes or goes on the way: there the loss has kinks.
            let h = 4e-4f32;
            let moved = |from: &[f32], direction: &[f32], h: f32| -> Vec<f32> {
                from.iter().zip(direction).map(|(value, d)| value + h * d).collect()
            };
            let difference = (loss_at(&case, &moved(&values, &direction, h))
                - loss_at(&case, &moved(&values, &direction, -h)))
                / (2.0 * f64::from(h));
            let gradient = host(signals.grad(&gradients).unwrap());
            agree(&format!("{}, signals", pursuit.name()), &gradient, &direction, difference);
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
                let gradient = host(filters.grad(&gradients).unwrap());
                agree(&format!("{}, W_{}", pursuit.name(), layer + 1), &gradient, &direction, difference);
            }
        }
    });
}
