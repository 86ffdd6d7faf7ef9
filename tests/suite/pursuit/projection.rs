//! Projections onto the model, recovery where it is guaranteed, holistic pursuit.

use crate::common;

use common::reference::Reference;
use common::{Case, host, norm, normals, on_every_device, rng, tensor, wide};
use mlcsc::geometry::{Geometry, LayerShape, SignalShape};
use mlcsc::model::stripe::{effective_radius, own_radius, stripe_norm};
use mlcsc::model::{Operator, OperatorForm};
use mlcsc::pursuit::{
    BasisPursuitConfig, ConvexProjectionConfig, GreedyProjectionConfig, HolisticPursuitConfig, Lambda,
    LayeredBasisPursuitConfig, LayeredThresholding, MultiLayerSplittingConfig, OrthogonalMatchingPursuitConfig,
    Problem, Pursuit, Representations, StopReason, Threshold,
};
use mlcsc::theory::coherence::mutual_coherence;
use rand::RngExt;

/// The most non-zeros in a window around a position of what the layer's atoms there overlap, by the definition: two atoms of
/// kernel k overlap where their positions differ by less than k/s.
fn fullest_stripe(
    code: &[f64],
    [channels, height, width]: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> usize {
    let floor = 1e-6 * code.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let mut most = 0;
    for y in 0..height {
        for x in 0..width {
            let mut count = 0;
            for channel in 0..channels {
                for v in 0..height {
                    for u in 0..width {
                        let near = y.abs_diff(v) * stride[0] < kernel[0] && x.abs_diff(u) * stride[1] < kernel[1];
                        let value = code[(channel * height + v) * width + u];
                        count += usize::from(near && value.abs() > floor);
                    }
                }
            }
            most = most.max(count);
        }
    }
    most
}

/// Asserts that representations are those of a signal in the model.
fn assert_member(case: &Case, representations: &[Vec<f32>], limits: &[usize], what: &str) -> Vec<usize> {
    let explicit = case.explicit();
    let made = explicit.propagate(&wide(&representations[representations.len() - 1]));
    let mut norms = Vec::new();
    for (index, (found, expected)) in representations.iter().zip(&made).enumerate() {
        let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        for (found, expected) in wide(found).iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-5 * largest, "{what}: layer {}", index + 1);
        }
        let layer = &explicit.layers[index];
        let count = fullest_stripe(expected, layer.code, layer.kernel, layer.stride);
        assert!(count <= limits[index], "{what}: {count} non-zeros in a stripe of layer {}", index + 1);
        norms.push(count);
    }
    norms
}

fn rows(representations: &Representations, row: usize) -> Vec<Vec<f32>> {
    let layers = representations.layers().iter();
    layers
        .map(|layer| {
            let count = layer.dims()[0];
            let values = host(layer.clone());
            values[row * (values.len() / count)..][..values.len() / count].to_vec()
        })
        .collect()
}

#[test]
fn projections_are_in_the_model() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let signals = problem.array("signals");
            // A limit on the deepest layer, one that sometimes binds on the layer below, none on one that dense atoms fill.
            let layers = problem.meta.layers.iter().rev().enumerate();
            let limit = |(above, len): (usize, usize)| [4, len / 3, len][above];
            let mut limits: Vec<usize> =
                layers.map(|(above, layer)| limit((above, layer.code_shape.iter().product()))).collect();
            limits.reverse();
            let asked = Problem::new(&operator, signals.batch(&device.device)).unwrap();
            let greedy = GreedyProjectionConfig::new(limits.clone()).init().unwrap();
            let projected = greedy.project(&asked).unwrap();
            for (row, report) in projected.reports.iter().enumerate() {
                let what = format!("{} signal {row} {report:?}", problem.name);
                let norms = assert_member(&case, &rows(&projected.representations, row), &limits, &what);
                for (norms, of_crate) in norms.iter().zip(projected.representations.stripe_norms()) {
                    assert_eq!(*norms, of_crate[row], "{what}");
                }
                assert_eq!(report.stop, StopReason::Limit, "{what}");
                // The residual is what the report says, by plain loops.
                let code = wide(&rows(&projected.representations, row)[limits.len() - 1]);
                let made = case.explicit().synthesize(&code);
                let left: f64 =
                    made.iter().zip(signals.row(row)).map(|(made, y)| (made - y).powi(2)).sum::<f64>() / 2.0;
                assert!((left - f64::from(report.data_term)).abs() <= 1e-5 * left, "{what}: {left}");
            }
            // One atom more leaves the model.
            for row in 0..2 {
                let more = OrthogonalMatchingPursuitConfig::new(projected.reports[row].nonzeros + 1).init().unwrap();
                let codes = wide(&host(more.solve(&asked).unwrap().codes));
                let explicit = case.explicit();
                let made = explicit.propagate(&codes[row * operator.code().len()..][..operator.code().len()]);
                let leaves = made.iter().zip(&explicit.layers).zip(&limits).any(|((gamma, layer), &limit)| {
                    fullest_stripe(gamma, layer.code, layer.kernel, layer.stride) > limit
                });
                assert!(leaves, "{} signal {row}: {:?}", problem.name, projected.reports[row]);
            }

            for debias in [false, true] {
                let config = ConvexProjectionConfig { debias, ..ConvexProjectionConfig::new(limits.clone()) };
                let asked = asked.clone().with_lambda(Lambda::Relative(0.05)).unwrap();
                let projected = config.init().unwrap().project(&asked).unwrap();
                for (row, report) in projected.reports.iter().enumerate() {
                    let what = format!("{} convex, signal {row} {report:?}", problem.name);
                    let rows = rows(&projected.representations, row);
                    assert_member(&case, &rows, &limits, &what);
                    assert!(report.nonzeros > 0, "{what}");
                    let used = rows[limits.len() - 1].iter().filter(|value| **value != 0.0).count();
                    assert_eq!(report.nonzeros, used, "{what}");
                    if debias {
                        // What is left is orthogonal to the atoms used.
                        let explicit = case.explicit();
                        let code = wide(&rows[limits.len() - 1]);
                        let made = explicit.synthesize(&code);
                        let left: Vec<f64> = signals.row(row).iter().zip(made).map(|(y, made)| y - made).collect();
                        for (value, correlation) in code.iter().zip(explicit.analyze(&left)) {
                            assert!(*value == 0.0 || correlation.abs() <= 1e-4 * norm(signals.row(row)), "{what}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_residual_ends_greedy_pursuits() {
    on_every_device(|device| {
        let problem = Reference::load("stride_two");
        let case = problem.case();
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Cascade).unwrap();
        let asked = Problem::new(&operator, problem.array("signals").batch(&device.device)).unwrap();
        let level = 0.6 * norm(problem.array("signals").row(0)) as f32;
        let config = OrthogonalMatchingPursuitConfig { residual: level, ..OrthogonalMatchingPursuitConfig::new(50) };
        let pursued = config.init().unwrap().solve(&asked).unwrap();
        let limits = vec![1000, 1000];
        let projection = GreedyProjectionConfig { residual: level, ..GreedyProjectionConfig::new(limits) };
        let projected = projection.init().unwrap().solve(&asked).unwrap();
        for (report, same) in pursued.reports.iter().zip(&projected.reports) {
            assert_eq!(report, same);
            let left = (2.0 * report.data_term).sqrt();
            assert!(report.stop == StopReason::Residual && left <= level, "{report:?}");
        }
        // The smallest number of atoms that gets there: with one fewer the residual is longer.
        for (row, report) in pursued.reports.iter().enumerate().filter(|(_, report)| report.nonzeros > 1) {
            let fewer = OrthogonalMatchingPursuitConfig::new(report.nonzeros - 1).init().unwrap();
            let left = (2.0 * fewer.solve(&asked).unwrap().reports[row].data_term).sqrt();
            assert!(left > level, "signal {row}: {left} of {level}");
        }
    });
}

#[test]
fn representations_cannot_leave_the_model() {
    on_every_device(|device| {
        let problem = Reference::load("two_layer");
        let case = problem.case();
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
        let codes = problem.array("true_gamma_L").batch(&device.device);
        let shape = operator.code();
        let radius = own_radius(&operator.geometry().layers()[1]);
        let values = host(codes.clone());
        let deepest = values.chunks_exact(shape.len()).map(|code| stripe_norm(code, shape, radius)).max().unwrap();
        let fits = Representations::new(&operator, codes.clone(), &[10_000, deepest]).unwrap();
        assert_eq!(fits.layers().len(), 2);
        for (limits, name) in [
            (vec![10_000, deepest - 1], "layer 2"),
            (vec![5, deepest], "layer 1"),
            (vec![deepest], "limits"),
            (vec![0, deepest], "limit of layer 1"),
        ] {
            let message = Representations::new(&operator, codes.clone(), &limits).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("expected"), "{message}");
        }
        let error = Representations::new(&operator, codes.reshape([6, 10, 36, 1]), &[9, 9]).unwrap_err();
        assert!(matches!(error, mlcsc::Error::Shape { .. }), "{error}");
    });
}

/// ½(1 + 1/μ(D^(L))) with the wider stripe of effective atoms.
fn effective_limit(case: &Case, operator: &Operator) -> f64 {
    let geometry: &Geometry = operator.geometry();
    let coherence = mutual_coherence(operator.effective_filters(), &geometry.effective_layer().unwrap());
    assert!(coherence > 0.0, "{:?}", case.config);
    0.5 * (1.0 + 1.0 / f64::from(coherence))
}

/// Where ‖γ_L‖ˢ_{0,∞} < ½(1 + 1/μ(D^(L))) greedy pursuit without noise finds the code, and basis pursuit over normalised atoms its
/// support, so that de-biasing gives it back.
#[test]
fn planted_codes_are_recovered_where_it_is_guaranteed() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
            let (depth, shape) = (problem.meta.layers.len(), operator.code());
            let radius = effective_radius(operator.geometry(), depth);
            let positions = shape.height * shape.width;
            // One non-zero in each of as many stripes as fit.
            let count = 4;
            let mut generator = rng(depth as u64);
            let mut planted = vec![0.0f32; count * shape.len()];
            for code in planted.chunks_exact_mut(shape.len()) {
                for row in (0..shape.height).step_by(radius[0] * 2 + 1) {
                    for column in (0..shape.width).step_by(radius[1] * 2 + 1) {
                        let atom = generator.random_range(0..shape.channels);
                        let value = generator.random_range(1.0..2.0) * if generator.random() { 1.0 } else { -1.0 };
                        code[atom * positions + row * shape.width + column] = value;
                    }
                }
            }
            let stripe = planted.chunks_exact(shape.len()).map(|code| stripe_norm(code, shape, radius)).max().unwrap();
            assert!((stripe as f64) < effective_limit(&case, &operator), "{}: nothing is guaranteed", problem.name);
            let explicit = case.explicit();
            let signals: Vec<f32> = planted
                .chunks_exact(shape.len())
                .flat_map(|code| explicit.synthesize(&wide(code)))
                .map(|sample| sample as f32)
                .collect();
            let signals = tensor(&signals, operator.signal().batched(count), &device.device);
            let nonzeros = planted[..shape.len()].iter().filter(|value| **value != 0.0).count();
            let asked = Problem::new(&operator, signals).unwrap();
            let limits: Vec<usize> =
                problem.meta.layers.iter().map(|layer| layer.code_shape.iter().product()).collect();
            // Weights that normalise the atoms.
            let norms: Vec<f32> =
                host(operator.atom_energies(None)).chunks_exact(positions).map(|energies| energies[0].sqrt()).collect();
            let weighted =
                asked.clone().with_lambda(Lambda::Absolute(0.01)).unwrap().with_weights(depth, norms).unwrap();
            let convex = ConvexProjectionConfig { debias: true, ..ConvexProjectionConfig::new(limits.clone()) };
            let greedy = GreedyProjectionConfig { residual: 1e-4, ..GreedyProjectionConfig::new(limits) };
            let found = [
                OrthogonalMatchingPursuitConfig::new(nonzeros).init().unwrap().solve(&asked).unwrap(),
                greedy.init().unwrap().solve(&asked).unwrap(),
                convex.init().unwrap().solve(&weighted).unwrap(),
            ];
            for (index, found) in found.into_iter().enumerate() {
                for (found, planted) in host(found.codes).iter().zip(&planted) {
                    assert!((found - planted).abs() <= 5e-5, "{} by {index}: {found} {planted}", problem.name);
                }
            }
        }
    });
}

/// Two layers of low coherence. D_1: on blocks of 4 × 4 the union of the identity and the Hadamard basis, μ = 1/4. D_2: 16 atoms
/// of two entries each, none shared, over the 2 × 2 positions: μ = 0.
fn incoherent() -> Case {
    let config = [LayerShape::new(32, 4, 4), LayerShape::new(16, 2, 2)];
    let mut case = Case::random(SignalShape::new(1, 8, 8), config.to_vec(), 1);
    for atom in 0..16usize {
        for sample in 0..16usize {
            case.filters[0][atom * 16 + sample] = f32::from(u8::from(atom == sample));
            let sign = if (atom & sample).count_ones() % 2 == 0 { 0.25 } else { -0.25 };
            case.filters[0][(16 + atom) * 16 + sample] = sign;
        }
        let entries = &mut case.filters[1][atom * 128..][..128];
        entries.fill(0.0);
        entries[atom * 4 + atom % 4] = 0.5f32.sqrt();
        entries[(31 - atom) * 4 + (atom + 1) % 4] = -(0.5f32.sqrt());
    }
    case
}

/// Layer-wise pursuits recover every representation where their conditions hold: ‖γ_1‖ˢ_{0,∞} = 1 < ⅓(1 + 1/μ(D_1)) = 5/3.
#[test]
fn layered_pursuits_recover_every_layer_where_it_is_guaranteed() {
    on_every_device(|device| {
        let case = incoherent();
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
        for (index, expected) in [0.25, 0.0].into_iter().enumerate() {
            let layer = &operator.geometry().layers()[index];
            let found = mutual_coherence(case.model(&device.device).filters()[index].clone(), layer);
            assert!((found - expected).abs() < 1e-6, "{found}");
        }
        // Atoms 0 and 2 touch different positions.
        let mut code = vec![0.0f32; 16];
        (code[0], code[2]) = (1.5, -1.5);
        let planted = case.explicit().propagate(&wide(&code));
        let signal: Vec<f32> = case.explicit().synthesize(&wide(&code)).into_iter().map(|value| value as f32).collect();
        let asked = Problem::new(&operator, tensor(&signal, [1, 1, 8, 8], &device.device)).unwrap();
        let basis = BasisPursuitConfig { gap: 1e-6, ..Default::default() };
        let hard = LayeredThresholding::new(Threshold::Hard);
        let layered = LayeredBasisPursuitConfig { basis: basis.clone(), ..Default::default() }.init().unwrap();
        let pursuits: [(&dyn Pursuit, f32); 2] = [(&hard, 0.6), (&layered, 2e-6)];
        for (pursuit, lambda) in pursuits {
            let asked = asked.clone().with_lambda(Lambda::Absolute(lambda)).unwrap();
            let pursued = pursuit.solve(&asked).unwrap();
            for (layer, (found, planted)) in pursued.representations(&operator).into_iter().zip(&planted).enumerate() {
                for (found, planted) in wide(&host(found)).iter().zip(planted) {
                    let what = format!("{} layer {}", pursuit.name(), layer + 1);
                    assert!((found - planted).abs() <= 5e-5, "{what}: {found} {planted}");
                }
            }
        }
    });
}

/// Layered thresholding is its formula, computed by plain loops.
#[test]
fn layered_thresholding_equals_its_definition() {
    on_every_device(|device| {
        let problem = Reference::load("stride_two");
        let case = problem.case();
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
        let signals = problem.array("signals");
        let explicit = case.explicit();
        for threshold in [Threshold::Soft, Threshold::Hard, Threshold::NonNegative] {
            let weights: Vec<f32> = (0..12).map(|atom| 0.5 + atom as f32 / 10.0).collect();
            let asked = Problem::new(&operator, signals.batch(&device.device))
                .unwrap()
                .with_lambda(Lambda::Absolute(0.2))
                .unwrap()
                .with_shallower_lambda(vec![Lambda::Absolute(0.1)])
                .unwrap()
                .with_weights(2, weights.clone())
                .unwrap();
            let pursued = LayeredThresholding::new(threshold).solve(&asked).unwrap();
            let found: Vec<Vec<f32>> = pursued.representations(&operator).into_iter().map(host).collect();
            for row in 0..signals.dims[0] {
                let mut below = signals.row(row).to_vec();
                for (index, layer) in explicit.layers.iter().enumerate() {
                    let positions = layer.code[1] * layer.code[2];
                    below = layer
                        .analyze(&below)
                        .into_iter()
                        .enumerate()
                        .map(|(place, x)| {
                            let beta = if index == 0 { 0.1 } else { 0.2 * f64::from(weights[place / positions]) };
                            match threshold {
                                Threshold::Soft => x.signum() * (x.abs() - beta).max(0.0),
                                Threshold::Hard => x * f64::from(u8::from(x.abs() > beta)),
                                Threshold::NonNegative => (x - beta).max(0.0),
                            }
                        })
                        .collect();
                    let found = &found[index][row * below.len()..][..below.len()];
                    for (found, expected) in found.iter().zip(&below) {
                        assert!((f64::from(*found) - expected).abs() <= 1e-5, "{threshold:?}: {found} {expected}");
                    }
                }
            }
        }
    });
}

/// With the co-supports of γ_1 as prior the deepest codes come out nearer to what was planted than by de-biased multi-layer basis
/// pursuit alone, which is what holistic pursuit is without rounds.
#[test]
fn holistic_pursuit_profits_from_zeros() {
    on_every_device(|device| {
        let config = vec![LayerShape::new(8, 4, 1), LayerShape::new(24, 6, 1)];
        let mut case = Case::random(SignalShape::new(1, 9, 9), config, 21);
        // Sparse deeper atoms: 6 of 288 entries each.
        let mut generator = rng(5);
        for atom in case.filters[1].chunks_exact_mut(8 * 36) {
            atom.fill(0.0);
            for _ in 0..6 {
                atom[generator.random_range(0..8 * 36)] = if generator.random() { 1.0 } else { -1.0 };
            }
            let length = norm(&wide(atom)) as f32;
            atom.iter_mut().for_each(|entry| *entry /= length);
        }
        let operator = case.model(&device.device).operator(case.config.signal, OperatorForm::Auto).unwrap();
        let explicit = case.explicit();
        let (count, len) = (16, 24);
        let mut planted = vec![0.0f32; count * len];
        let mut signals = Vec::new();
        let mut most = 0;
        for code in planted.chunks_exact_mut(len) {
            for _ in 0..3 {
                code[generator.random_range(0..len)] = generator.random_range(0.7..1.5);
            }
            let shallow = explicit.propagate(&wide(code))[0].iter().filter(|value| value.abs() > 1e-9).count();
            most = most.max(shallow);
            let noise = normals(&mut generator, 81);
            let made = explicit.synthesize(&wide(code));
            signals.extend(made.iter().zip(noise).map(|(made, noise)| *made as f32 + 0.12 * noise));
        }
        let signals = tensor(&signals, operator.signal().batched(count), &device.device);
        let asked = Problem::new(&operator, signals).unwrap().with_lambda(Lambda::Absolute(0.05)).unwrap();
        let error = |codes: &[f32]| {
            let difference: Vec<f64> = wide(codes).iter().zip(&planted).map(|(a, &b)| a - f64::from(b)).collect();
            norm(&difference) / norm(&wide(&planted))
        };
        let pursuit = HolisticPursuitConfig::new(vec![most]).init().unwrap();
        let pursued = pursuit.solve(&asked).unwrap();
        let holistic = error(&host(pursued.codes.clone()));
        let everything = HolisticPursuitConfig::new(vec![operator.geometry().layers()[0].code.len()]).init().unwrap();
        let without = error(&host(everything.solve(&asked).unwrap().codes));
        let exact = MultiLayerSplittingConfig::default().init().unwrap().solve(&asked).unwrap();
        let shrunk = error(&host(exact.codes));
        // Measured: 0.58.
        assert!(holistic < 0.7 * without.min(shrunk), "{holistic}; {without} without zeros, {shrunk} by basis pursuit");
        // Where all zeros were used the representation has no more non-zeros than it may.
        let shallow = operator.propagate(pursued.codes)[0].clone();
        let values = host(shallow);
        for (gamma, report) in values.chunks_exact(values.len() / count).zip(&pursued.reports) {
            let used = gamma.iter().filter(|value| value.abs() > 1e-5).count();
            assert!(report.stop != StopReason::Nonzeros || used <= most, "{used} of {most}: {report:?}");
        }
        assert!(pursued.reports.iter().any(|report| report.stop == StopReason::Nonzeros));
    });
}
