//! Unrolled pursuits as differentiable functions; run with `--features autodiff`.

use crate::common;

use burn::tensor::Device;
use common::{Case, host, on_every_device, rng, tensor, wide};
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::OperatorForm;
use mlcsc::pursuit::{
    Acceleration, Algorithm, BasisPursuitConfig, Lambda, Learned, MultiLayerProximalGradientConfig, Problem,
    ProximalGradientConfig, Unrolled, implicit,
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
        if device.skips() {
            return;
        }
        let case = case();
        let values = case.signals(1);
        let gradient = MultiLayerProximalGradientConfig::new(Acceleration::Ista).init().unwrap();
        let proximal = ProximalGradientConfig::new(Acceleration::Fista).init().unwrap();
        for (pursuit, shallower) in [(&proximal as &dyn Unrolled, None), (&gradient, Some(Lambda::Absolute(0.02)))] {
            let run = |case: &Case, values: &[f32], device: &Device| {
                let model = case.model(device);
                let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
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
            // over 2h see as up to 0.3% of that length. Measured: 0.18% at most.
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

/// Derivatives of a function of the minimiser: by its optimality conditions, through all iterations, through the last of them, and by
/// differences of minimisers that an exact algorithm finds.
#[test]
fn minimisers_are_differentiable_without_their_iterations() {
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        let case = case();
        let values = case.signals(2);
        // Where convolutions have inner padding D^(L) is a matrix and nothing else.
        let padded = Case::random(
            SignalShape::new(1, 9, 8),
            vec![LayerShape::new(5, 3, 1), LayerShape::new(6, 3, 1).with_padding(1)],
            4,
        );
        for (case, values) in [(case, values), (padded.clone(), padded.signals(2))] {
            let shape = case.config.signal.batched(2);
            let exact = |case: &Case, values: &[f32]| {
                let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
                let basis = BasisPursuitConfig { gap: 1e-7, ..BasisPursuitConfig::default() };
                let pursuit = Algorithm::ActiveSet.init(&basis, &operator).unwrap();
                pursuit.pursue(&operator, tensor(values, shape, &device.device), &Lambda::Absolute(0.4)).unwrap().codes
            };
            // Weights make the gradient that comes back a different one for every code value.
            let weights = common::normals(&mut rng(31), host(exact(&case, &values)).len());
            let loss = |codes: &[f32]| -> f64 {
                codes.iter().zip(&weights).map(|(code, weight)| f64::from(*code) * f64::from(*weight)).sum()
            };
            let tracked = device.device.clone().autodiff();
            let gradients = |name: &str| -> Vec<Vec<f32>> {
                let model = case.model(&tracked);
                let operator = model.operator(case.config.signal, OperatorForm::Auto).unwrap();
                let signals = tensor(&values, shape, &tracked).require_grad();
                let codes = match name {
                    "implicit" => {
                        let codes = host(exact(&case, &values));
                        let codes = tensor(&codes, operator.code().batched(2), &tracked);
                        implicit::follow(&operator, signals.clone(), codes).unwrap()
                    }
                    _ => {
                        let learned =
                            Learned { gradients_through: (name == "truncated").then_some(500), ..Learned::default() };
                        let problem = Problem::new(&operator, signals.clone()).unwrap();
                        let problem = problem.with_lambda(Lambda::Absolute(0.4)).unwrap();
                        let pursuit = ProximalGradientConfig::new(Acceleration::Fista).init().unwrap();
                        pursuit.unrolled_with(&problem, 600, &learned).unwrap()
                    }
                };
                let weights = tensor(&weights, codes.dims(), &tracked);
                let gradients = (codes * weights).sum().backward();
                let filters = model.filters();
                let all = [&signals].into_iter().chain(&filters);
                all.map(|values| host(values.grad(&gradients).unwrap())).collect()
            };
            let found = gradients("implicit");
            let distance = |a: &[f32], b: &[f32]| {
                let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                common::norm(&wide(&difference)) / common::norm(&wide(b))
            };
            for name in ["unrolled", "truncated"] {
                for (index, (found, expected)) in found.iter().zip(gradients(name)).enumerate() {
                    let distance = distance(found, &expected);
                    println!("{name}, {index}: {distance}");
                    assert!(distance < 5e-3, "{name}, {index}: {distance}");
                }
            }
            for (index, gradient) in found.iter().enumerate() {
                let direction = common::normals(&mut rng(40 + index as u64), gradient.len());
                let at = |h: f32| {
                    let moved = |from: &[f32]| -> Vec<f32> {
                        from.iter().zip(&direction).map(|(value, d)| value + h * d).collect()
                    };
                    let mut case = case.clone();
                    match index {
                        0 => loss(&host(exact(&case, &moved(&values)))),
                        layer => {
                            case.filters[layer - 1] = moved(&case.filters[layer - 1]);
                            loss(&host(exact(&case, &values)))
                        }
                    }
                };
                let slope: f64 = gradient.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let length = common::norm(&wide(gradient));
                // The narrowest step meets the fewest kinks, where a code value comes or goes, and the widest rounding.
                let differences = [1e-3f32, 3e-4, 1e-4].map(|h| (at(h) - at(-h)) / (2.0 * f64::from(h)));
                println!("{index}: {slope} {differences:?}, gradient {length}");
                let agrees = differences.iter().any(|difference| (slope - difference).abs() <= 0.005 * length);
                assert!(agrees, "{index}: {slope} {differences:?}, gradient {length}");
            }
        }
    });
}

/// Truncated to no more iterations than there are, gradients are those of all; truncated to one, there are still some.
#[test]
fn truncation_cuts_the_way_back_alone() {
    on_every_device(|device| {
        if device.skips() {
            return;
        }
        let case = case();
        let values = case.signals(1);
        let proximal = ProximalGradientConfig::new(Acceleration::Fista).init().unwrap();
        let multi_layer = MultiLayerProximalGradientConfig::new(Acceleration::Fista).init().unwrap();
        for pursuit in [&proximal as &dyn Unrolled, &multi_layer] {
            let run = |last: Option<usize>| {
                let tracked = device.device.clone().autodiff();
                let model = case.model(&tracked);
                let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
                let signals = tensor(&values, case.config.signal.batched(1), &tracked);
                let problem = Problem::new(&operator, signals).unwrap().with_lambda(Lambda::Absolute(0.4)).unwrap();
                let learned = Learned { gradients_through: last, ..Learned::default() };
                let codes = pursuit.unrolled_with(&problem, 8, &learned).unwrap();
                let gradients = codes.clone().square().sum().backward();
                (host(codes), host(model.filters()[1].grad(&gradients).unwrap()))
            };
            let (codes, whole) = run(None);
            for last in [8, 9, usize::MAX] {
                assert_eq!(run(Some(last)), (codes.clone(), whole.clone()), "{}, {last}", pursuit.name());
            }
            let mut before = whole;
            for last in [5, 1] {
                let (same, gradient) = run(Some(last));
                assert_eq!(same, codes, "{}", pursuit.name());
                assert!(gradient != before && gradient.iter().any(|value| *value != 0.0), "{}", pursuit.name());
                before = gradient;
            }
        }
    });
}
