//! Coherences, local norms, theorems, certificates and samples, against definitions by plain loops in `f64` and against what pursuits
//! really do.

use crate::common;

use common::explicit::{Explicit, Layer, Matrix};
use common::reference::Reference;
use common::theorems::{check_all_measured, check_promise};
use common::{Case, host, inner, norm, normals, on_every_device, on_random_models, rng, tensor, wide};
use mlcsc::evaluate::trial::{self, TrialSignal};
use mlcsc::geometry::{Geometry, LayerGeometry, LayerShape, Pair, SignalShape};
use mlcsc::kernels::sparse::HostFilters;
use mlcsc::model::design::DesignConfig;
use mlcsc::model::sample::{SampleConfig, add_noise, generator, sparsity_conditions};
use mlcsc::model::stripe::{effective_radius, own_radius, patch_extent, stripe_norm};
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use mlcsc::theory::bounds::{covering_patches, thresholds};
use mlcsc::theory::certificate::{Certificate, Uniqueness};
use mlcsc::theory::{
    Coherence, DictionaryProfile, Levels, ModelProfile, Noise, Penalty, Theorem, mutual_coherence, welch_bound,
};
use rand::RngExt;

/// Largest normalised inner product of distinct columns at every shift of up to `reach` positions, from the columns themselves.
fn coherences(matrix: &Matrix, code: [usize; 3], reach: [usize; 2]) -> Vec<Vec<f64>> {
    let [_, rows, columns] = code;
    let place = |index: usize| ((index / columns % rows) as isize, (index % columns) as isize);
    let norms: Vec<f64> = matrix.columns.iter().map(|column| norm(column)).collect();
    let mut found = vec![vec![0.0f64; 2 * reach[1] + 1]; 2 * reach[0] + 1];
    for (i, first) in matrix.columns.iter().enumerate() {
        for (j, second) in matrix.columns.iter().enumerate() {
            if i == j || norms[i] == 0.0 || norms[j] == 0.0 {
                continue;
            }
            let coherence = inner(first, second).abs() / (norms[i] * norms[j]);
            let (down, across) = (place(j).0 - place(i).0, place(j).1 - place(i).1);
            let (row, column) = (down + reach[0] as isize, across + reach[1] as isize);
            match found.get_mut(row as usize).and_then(|row| row.get_mut(column as usize)) {
                Some(largest) => *largest = largest.max(coherence),
                None => assert!(coherence < 1e-12, "columns {i} and {j} overlap beyond the reach"),
            }
        }
    }
    found
}

fn explicit_layers(case: &Case) -> Vec<Layer> {
    case.explicit().layers
}

/// Whether a number that is rounded up bounds one that `f64` has rounded either way, tightly: columns that cropping or cancellation
/// leave short have lost some digits.
fn bounds(found: f64, value: f64) -> bool {
    found >= value * (1.0 - 1e-14) && found <= value + 1e-10
}

/// The pair of columns that is said to have the mutual coherence has it.
fn check_attained(profile: &DictionaryProfile, matrix: &Matrix, code: [usize; 3]) {
    let Some(pair) = profile.coherence.attained() else {
        assert_eq!(profile.mutual(), 0.0);
        return;
    };
    let [first, second] = [0, 1].map(|end| {
        let [row, column] = pair.positions[end];
        &matrix.columns[(pair.atoms[end] * code[1] + row) * code[2] + column]
    });
    assert_ne!((pair.atoms[0], pair.positions[0]), (pair.atoms[1], pair.positions[1]));
    assert!(bounds(profile.mutual(), inner(first, second).abs() / (norm(first) * norm(second))), "{pair:?}");
}

/// Welch's bound by counting columns, the samples that they cover and the pairs that overlap, position by position; no padding.
fn welch(layer: &LayerGeometry) -> f64 {
    let covered = |axis: usize, position: usize| {
        let first = position * layer.stride[axis];
        first..first + layer.kernel[axis]
    };
    let positions = [layer.code.height, layer.code.width];
    let atoms = layer.code.channels as f64;
    let largest = |columns: f64, dimensions: f64, pairs: f64| {
        if columns > dimensions && pairs > 0.0 { (columns * columns / dimensions - columns) / pairs } else { 0.0 }
    };
    let overlapping = |axis: usize, count: usize| {
        let all = (0..count).flat_map(|first| (0..count).map(move |second| (first, second)));
        all.filter(|&(first, second)| {
            let (first, second) = (covered(axis, first), covered(axis, second));
            first.start < second.end && second.start < first.end
        })
        .count() as f64
    };
    let samples = |axis: usize, count: usize| {
        (0..count).flat_map(|place| covered(axis, place)).collect::<std::collections::BTreeSet<_>>().len() as f64
    };
    let mut squared = 0.0f64;
    for side in 1..=positions[0].max(positions[1]) {
        let counts = positions.map(|positions| side.min(positions));
        let columns = atoms * (counts[0] * counts[1]) as f64;
        let dimensions = layer.signal.channels as f64 * samples(0, counts[0]) * samples(1, counts[1]);
        let pairs = atoms * atoms * overlapping(0, counts[0]) * overlapping(1, counts[1]) - columns;
        squared = squared.max(largest(columns, dimensions, pairs));
    }
    // Where all shifts occur, a signal may be thought as long as one likes: so many more columns, samples and pairs for one more
    // position.
    let reach = layer.reach();
    let all = (0..2).all(|axis| positions[axis] > layer.kernel[axis].div_ceil(layer.stride[axis]) - 1);
    if all {
        let more = |count: &dyn Fn(usize, usize) -> f64, axis: usize| count(axis, 101) - count(axis, 100);
        let dimensions = layer.signal.channels as f64 * more(&samples, 0) * more(&samples, 1);
        let shifts = ((2 * reach[0] + 1) * (2 * reach[1] + 1)) as f64;
        squared = squared.max(largest(atoms, dimensions, atoms * atoms * shifts - atoms));
    }
    squared.sqrt()
}

/// Shift coherences, column norms and Welch's bound of every own and effective dictionary of a model.
fn check_profile(case: &Case, device: &common::TestDevice) {
    let model = case.model(&device.device);
    let profile = ModelProfile::new(&model, case.config.signal).unwrap();
    let geometry = case.config.geometry().unwrap();
    let layers = explicit_layers(case);
    for depth in 1..=layers.len() {
        let own = layers[depth - 1].matrix();
        let effective = Explicit { layers: layers[..depth].to_vec() }.matrix();
        let code = layers[depth - 1].code;
        let radii = [own_radius(&geometry.layers()[depth - 1]), effective_radius(&geometry, depth)];
        let windows = [geometry.layers()[depth - 1].clone(), geometry.windows(depth)];
        for (((matrix, profile), radius), windows) in [own, effective]
            .iter()
            .zip([&profile.own[depth - 1], &profile.effective[depth - 1]])
            .zip(radii)
            .zip(windows)
        {
            assert_eq!(profile.radius, radius);
            let expected = coherences(matrix, code, radius);
            for (row, values) in expected.iter().enumerate() {
                for (column, &value) in values.iter().enumerate() {
                    let shift = [row as isize - radius[0] as isize, column as isize - radius[1] as isize];
                    let found = profile.coherence.at(shift);
                    assert!(bounds(found, value), "depth {depth}, shift {shift:?}: {found}, expected {value}");
                }
            }
            let largest = expected.iter().flatten().fold(0.0f64, |largest, value| largest.max(*value));
            assert!(bounds(profile.mutual(), largest));
            check_attained(profile, matrix, code);
            for (found, column) in profile.norms.iter().zip(&matrix.columns) {
                let expected = norm(column);
                assert!(
                    found[0] <= expected * (1.0 + 1e-14) && expected * (1.0 - 1e-14) <= found[1],
                    "{found:?} {expected}"
                );
                assert!(found[1] - found[0] <= 1e-12 * expected.max(1e-3), "{found:?} is loose");
            }
            assert_eq!(profile.norms.len(), matrix.columns.len());
            if profile.min_norm() > 0.0 {
                assert!(profile.welch <= largest + 1e-12, "Welch's bound {} is above {largest}", profile.welch);
            }
            if windows.padding == [0, 0] {
                let expected = welch(&windows);
                assert!((profile.welch - expected).abs() <= 1e-12, "{} {expected}", profile.welch);
            }
        }
    }
}

#[test]
fn coherences_and_norms_are_those_of_the_columns() {
    on_random_models(48, 21, check_profile);
}

/// Signals so large that most positions hold whole columns: cropped in the first layer, inside the cascade, in both, unevenly.
#[test]
fn cropped_columns_are_found_on_large_signals() {
    on_every_device(|device| {
        let padded = |atoms, kernel: usize, stride: usize, padding: [usize; 2]| {
            LayerShape::new(atoms, kernel, stride).with_padding(Pair(padding))
        };
        let models = [
            (SignalShape::new(1, 14, 13), vec![padded(3, 3, 1, [1, 2])]),
            (SignalShape::new(2, 22, 17), vec![padded(2, 4, 2, [3, 1])]),
            (SignalShape::new(1, 19, 16), vec![padded(2, 3, 2, [0, 0]), padded(3, 3, 1, [1, 1])]),
            (
                SignalShape::new(1, 21, 20),
                vec![padded(2, 3, 1, [2, 0]), padded(2, 3, 2, [1, 2]), padded(3, 2, 1, [1, 0])],
            ),
        ];
        for (seed, (signal, layers)) in models.into_iter().enumerate() {
            check_profile(&Case::random(signal, layers, seed as u64), device);
        }
    });
}

#[test]
fn stripe_norms_and_coherences_equal_the_reference() {
    on_every_device(|device| {
        for problem in Reference::all() {
            let case = problem.case();
            let model = case.model(&device.device);
            let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
            let profile = ModelProfile::new(&model, case.config.signal).unwrap();
            let meta = &problem.meta;
            for (profiles, expected) in
                [(&profile.own, &meta.coherence_layer), (&profile.effective, &meta.coherence_effective)]
            {
                for (profile, expected) in profiles.iter().zip(expected) {
                    // The reference's filters had not been rounded to `f32`.
                    assert!((profile.mutual() - expected).abs() <= 1e-6, "{}", problem.name);
                    assert!(profile.welch <= *expected);
                }
            }
            let codes = problem.array("true_gamma_L").batch(&device.device);
            let levels = Levels::of(&profile, &operator.propagate(codes)).unwrap();
            assert_eq!(levels.len(), meta.signals);
            for (levels, expected) in levels.iter().zip(&meta.true_stripe_norms) {
                assert_eq!(levels.layers[profile.depth() - 1].effective_stripe, *expected, "{}", problem.name);
            }
        }
    });
}

#[test]
fn welch_is_reached_where_it_can_be() {
    let layer = |signal: SignalShape, shape: LayerShape| Geometry::new(signal, &[shape]).unwrap().layers()[0].clone();
    // N vectors in d dimensions: √((N − d)/(d(N − 1))).
    let dense = layer(SignalShape::new(3, 1, 1), LayerShape::new(4, 1, 1));
    assert!((welch_bound(&dense) - 1.0 / 3.0).abs() < 1e-12);
    // Welch's own bound for sequences, √((m − 1)/(m(2k − 1) − 1)), on a signal much longer than the atoms.
    let sequences = layer(SignalShape::new(1, 1, 4000), LayerShape::new(5, Pair([1, 8]), 1));
    assert!((welch_bound(&sequences) - (4.0f64 / 74.0).sqrt()).abs() < 1e-12);
    // No more columns than dimensions.
    assert_eq!(welch_bound(&layer(SignalShape::new(1, 8, 8), LayerShape::new(4, 2, 2))), 0.0);
    // The tetrahedron's corners are as far apart as four vectors in three dimensions can be.
    let corners: Vec<f32> =
        [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]].concat().iter().map(|&v| v as f32).collect();
    on_every_device(|device| {
        let coherence = mutual_coherence(tensor(&corners, [4, 3, 1, 1], &device.device), &dense);
        // Rounded up: a third is no `f32`.
        assert_eq!(coherence, (1.0f32 / 3.0).max(0.333_333_34));
    });
}

#[test]
fn stripe_coherence_is_its_definition() {
    on_random_models(16, 22, |case, device| {
        let model = case.model(&device.device);
        let coherence = Coherence::of_columns(&model, case.config.signal).unwrap();
        let code = case.explicit().code();
        let shape = SignalShape::new(code[0], code[1], code[2]);
        let mut rng = rng(case.seed);
        let values: Vec<f32> = (0..shape.len()).map(|_| f32::from(rng.random_bool(0.3))).collect();
        let mut expected = 0.0f64;
        for row in 0..code[1] {
            for column in 0..code[2] {
                let terms = (0..values.len()).map(|index| {
                    let shift = [
                        (index / code[2] % code[1]) as isize - row as isize,
                        (index % code[2]) as isize - column as isize,
                    ];
                    f64::from(values[index]) * coherence.at(shift)
                });
                expected = expected.max(terms.sum());
            }
        }
        let found = coherence.of_stripe(&values, shape);
        assert!((found - expected).abs() < 1e-9);
        let geometry = case.config.geometry().unwrap();
        let stripe = stripe_norm(&values, shape, effective_radius(&geometry, geometry.depth()));
        assert!(found <= coherence.mutual() * stripe as f64 + 1e-9);
    });
}

/// One dense layer that is a plain matrix of these columns.
fn dense_case(columns: &[Vec<f32>]) -> Case {
    let config = ModelConfig::new(SignalShape::new(columns[0].len(), 1, 1), vec![LayerShape::new(columns.len(), 1, 1)]);
    Case { config, filters: vec![columns.concat()], seed: 0 }
}

fn profile_of(case: &Case, device: &burn::tensor::Device) -> (Mlcsc, ModelProfile) {
    let model = case.model(device);
    let profile = ModelProfile::new(&model, case.config.signal).unwrap();
    (model, profile)
}

fn levels_of(case: &Case, model: &Mlcsc, profile: &ModelProfile, code: &[f32]) -> Levels {
    let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
    let codes = tensor(code, operator.code().batched(1), &model.device());
    Levels::of(profile, &operator.propagate(codes)).unwrap().remove(0)
}

/// Every constant, on columns for which it can be worked out by hand: μ = 0.1, one column of length 2.
#[test]
fn bounds_are_what_the_theorems_say() {
    on_every_device(|device| {
        // (1, 0, 0), (0.1, √0.99, 0), 2·(0, 0, 1).
        let case = dense_case(&[vec![1.0, 0.0, 0.0], vec![0.1, 0.99f32.sqrt(), 0.0], vec![0.0, 0.0, 2.0]]);
        let (model, profile) = profile_of(&case, &device.device);
        assert!((profile.own[0].mutual() - 0.1).abs() < 1e-6);
        assert!((profile.own[0].uniqueness_limit() - 5.5).abs() < 1e-4);
        let levels = levels_of(&case, &model, &profile, &[3.0, -2.0, 0.0]);
        let level = &levels.layers[0];
        assert_eq!((level.nonzeros, level.own_stripe, level.effective_stripe, level.patch), (2, 2, 2, 2));
        let close =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
        for (found, expected) in [(level.own_least, 2.0), (level.own_largest, 3.0), (level.largest, 3.0)] {
            close(found, expected);
        }
        let noise = Noise { global: 0.3, first_patch: 0.2, effective_patch: 0.2 };
        let bound = |theorem: &Theorem| theorem.promise(&profile, &levels, &noise).layers[0].clone().unwrap();
        close(bound(&Theorem::ModelProjection).global, 0.6 / 0.7f64.sqrt());
        close(bound(&Theorem::LayeredCoding).global, 0.6 / 0.7f64.sqrt());
        let greedy = bound(&Theorem::GreedyProjection);
        close(greedy.global, 0.3 / 0.9f64.sqrt());
        close(greedy.largest, 0.2 / 0.9);
        // λ = 4ε = 0.8: (0.2 + 0.8)/0.9; 7.5ε√2 in the paper's norm, had all columns unit norm.
        let convex = bound(&Theorem::ConvexProjection { penalty: None });
        close(convex.largest, 1.0 / 0.9);
        close(convex.local, 2.0f64.sqrt() / 0.9);
        assert_eq!(convex.paper, None);
        close(bound(&Theorem::LayeredBasisPursuit { penalties: None }).local, 2.0f64.sqrt() / 0.9);
        // Outside: w̄(kμ|c|_max + ε) = 2(0.6 + 0.2); inside: 2 − 0.3 − 0.2 = 1.5, which is less.
        let soft = Theorem::LayeredThresholding { soft: true, thresholds: None };
        let unmet = soft.promise(&profile, &levels, &noise).layers[0].clone().unwrap_err();
        close(unmet.found, 1.6);
        close(unmet.limit, 1.5);
        assert!(unmet.to_string().contains("layer 1") && unmet.to_string().contains("1.6"), "{unmet}");

        // Of unit norm the third column leaves room: β between 0.8 and 1.5.
        let case = dense_case(&[vec![1.0, 0.0, 0.0], vec![0.1, 0.99f32.sqrt(), 0.0], vec![0.0, 0.0, 1.0]]);
        let (model, profile) = profile_of(&case, &device.device);
        let levels = levels_of(&case, &model, &profile, &[3.0, -2.0, 0.0]);
        let bound = |theorem: &Theorem| theorem.promise(&profile, &levels, &noise).layers[0].clone().unwrap();
        let given = |beta, soft| Theorem::LayeredThresholding { soft, thresholds: Some(vec![beta]) };
        close(bound(&given(1.0, true)).largest, 0.5 + 1.0);
        close(bound(&given(1.0, false)).largest, 0.5);
        close(thresholds(&profile, &levels, &noise, true)[0], 0.8 + 0.01 * 0.7);
        for beta in [0.7, 1.6] {
            assert!(!given(beta, true).promise(&profile, &levels, &noise).holds(), "{beta}");
        }
        let convex = bound(&Theorem::ConvexProjection { penalty: None });
        close(convex.paper.unwrap(), 7.5 * 0.2 * 2.0f64.sqrt());
        assert!(convex.local <= convex.paper.unwrap());
        // ρ = 0.2/0.9: a penalty of ε(1 + ρ)/(1 − ρ) = 0.314 is the least that will do.
        for (lambda, holds) in [(0.32, true), (0.31, false)] {
            let theorem = Theorem::ConvexProjection { penalty: Some(Penalty::normalized(lambda)) };
            assert_eq!(theorem.promise(&profile, &levels, &noise).holds(), holds, "{lambda}");
        }

        // OMP: kμ = 0.2 < ½·1.1 − ε/2 up to ε = 0.7.
        let radius = Theorem::GreedyProjection.radius(&profile, &levels).unwrap();
        close(radius, 0.7);
        assert_eq!(Theorem::ModelProjection.radius(&profile, &levels), Some(f64::INFINITY));
        assert_eq!(Theorem::ConvexProjection { penalty: None }.radius(&profile, &levels), Some(f64::INFINITY));
        // Thresholding: 0.6 + ε < 2 − 0.3 − ε up to ε = 0.55.
        close(Theorem::LayeredThresholding { soft: false, thresholds: None }.radius(&profile, &levels).unwrap(), 0.55);

        // Three non-zeros of columns with μ = ½ are too many for anybody, and the reason says by how much.
        let half = [vec![1.0, 0.0, 0.0], vec![0.5, 0.75f32.sqrt(), 0.0], vec![0.0, 0.0, 1.0]];
        let case = dense_case(&half);
        let (model, profile) = profile_of(&case, &device.device);
        let levels = levels_of(&case, &model, &profile, &[1.0, 1.0, 1.0]);
        for theorem in Theorem::all() {
            assert_eq!(theorem.radius(&profile, &levels), None, "{}", theorem.name());
        }
        let promise = Theorem::ModelProjection.promise(&profile, &levels, &noise);
        let unmet = promise.unmet().unwrap();
        assert!((unmet.found, unmet.layer) == (3.0, 1) && (unmet.limit - 1.5).abs() < 1e-5, "{unmet}");
        // A zero column makes nothing unique.
        let case = dense_case(&[vec![1.0, 0.0], vec![0.0, 1.0], vec![0.0, 0.0]]);
        let (model, profile) = profile_of(&case, &device.device);
        let levels = levels_of(&case, &model, &profile, &[1.0, 0.0, 0.0]);
        for theorem in Theorem::all().iter().filter(|theorem| !theorem.name().contains("thresholding")) {
            assert_eq!(theorem.radius(&profile, &levels), None, "{}", theorem.name());
        }
    });
}

/// c_j by counting: the most patches of γ_j, laid side by side, that it takes to cover every position whose atom meets a patch of γ_{j−1}.
#[test]
fn patches_cover_what_a_patch_sees() {
    on_random_models(64, 23, |case, _| {
        let geometry = case.config.geometry().unwrap();
        for depth in 1..=geometry.depth() {
            let layer = &geometry.layers()[depth - 1];
            let (window, patch) = (patch_extent(&geometry, depth - 1), patch_extent(&geometry, depth));
            let mut most = [0usize; 2];
            for axis in 0..2 {
                let positions = [layer.code.height, layer.code.width][axis] as isize;
                for start in -20..60isize {
                    let meets = |position: &isize| {
                        let first = position * layer.stride[axis] as isize - layer.padding[axis] as isize;
                        first < start + window[axis] as isize && first + layer.kernel[axis] as isize > start
                    };
                    most[axis] = most[axis].max((0..positions).filter(meets).count());
                }
                assert!(most[axis] <= layer.touching(window)[axis]);
            }
            let counted: usize = (0..2).map(|axis| most[axis].div_ceil(patch[axis])).product();
            assert!(covering_patches(&geometry, depth) >= counted);
            let interior =
                layer.padding == [0, 0] && (0..2).all(|axis| most[axis] < [layer.code.height, layer.code.width][axis]);
            if interior {
                assert_eq!(covering_patches(&geometry, depth), counted);
            }
        }
    });
}

/// Levels by plain loops, and an entry that cancels.
#[test]
fn cancelled_entries_are_seen() {
    on_every_device(|device| {
        // Two atoms of D_2 that both reach channel 0 of γ_1: their difference cancels there.
        let config =
            ModelConfig::new(SignalShape::new(3, 1, 1), vec![LayerShape::new(3, 1, 1), LayerShape::new(2, 1, 1)]);
        let identity = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let case = Case { config, filters: vec![identity, vec![0.6, 0.8, 0.0, 0.6, 0.0, 0.8]], seed: 0 };
        let (model, profile) = profile_of(&case, &device.device);
        let survives = levels_of(&case, &model, &profile, &[1.0, 0.5]);
        assert!(survives.supports_survive());
        assert_eq!((survives.layers[0].own_stripe, survives.layers[0].reached_stripe), (3, 3));
        let cancels = levels_of(&case, &model, &profile, &[1.0, -1.0]);
        assert!(!cancels.supports_survive());
        assert_eq!(
            (cancels.layers[0].vanished, cancels.layers[0].nonzeros, cancels.layers[0].reached_stripe),
            (1, 2, 3)
        );
    });
}

/// A model of three layers on which every theorem holds for some signals: designed, nearly orthogonal.
fn designed(device: &burn::tensor::Device, seed: u64) -> (Mlcsc, ModelProfile) {
    let layers = vec![LayerShape::new(4, 6, 3), LayerShape::new(6, 2, 2), LayerShape::new(8, 3, 1)];
    let config = DesignConfig {
        steps: 150,
        seed,
        ..DesignConfig::new(ModelConfig::new(SignalShape::new(1, 24, 24), layers), vec![2, 2])
    };
    let model = config.init(device).unwrap();
    let profile = ModelProfile::new(&model, model.config().signal).unwrap();
    (model, profile)
}

/// Two signals in the model, y halfway between them: the distance of their representations is the hardest case of the bound.
#[test]
fn representations_of_near_signals_are_near() {
    on_every_device(|device| {
        let mut checked = [0; 3];
        for seed in 0..2 {
            let (model, profile) = designed(&device.device, seed);
            let operator = model.operator(model.config().signal, OperatorForm::Matrix).unwrap();
            let mut rng = generator(seed);
            let sampler = SampleConfig { amplitudes: [0.1, 1.0], ..SampleConfig::new(1 + seed as usize) }
                .init(&operator)
                .unwrap();
            let (first, second) = (sampler.sample(150, &mut rng).unwrap(), sampler.sample(150, &mut rng).unwrap());
            let levels = [&first, &second].map(|samples| Levels::of(&profile, &samples.representations).unwrap());
            let apart = host(first.signals.clone() - second.signals.clone());
            for (index, (one, other)) in levels[0].iter().zip(&levels[1]).enumerate() {
                let distance = norm(&wide(&apart[index * operator.signal().len()..][..operator.signal().len()]));
                // Both are as sparse as the less sparse one.
                let mut levels = one.clone();
                for (level, other) in levels.layers.iter_mut().zip(&other.layers) {
                    level.effective_stripe = level.effective_stripe.max(other.effective_stripe);
                    level.own_stripe = level.own_stripe.max(other.own_stripe);
                }
                let noise = Noise::of_length(0.5 * distance);
                let promise = Theorem::ModelProjection.promise(&profile, &levels, &noise);
                for (layer, bound) in promise.layers.iter().enumerate() {
                    let Ok(bound) = bound else { continue };
                    let difference = host(first.representations[layer].clone() - second.representations[layer].clone());
                    let len = difference.len() / 150;
                    let found = norm(&wide(&difference[index * len..][..len]));
                    assert!(
                        found <= bound.global * (1.0 + 1e-4),
                        "layer {}: {found} beyond {}",
                        layer + 1,
                        bound.global
                    );
                    checked[layer] += 1;
                }
            }
        }
        assert!(checked.iter().all(|&count| count > 100), "{checked:?}");
    });
}

/// What is measured never exceeds what is promised, for any theorem, on signals and noise of all sizes.
#[test]
fn no_promise_is_broken() {
    on_every_device(|device| {
        let mut checked = std::collections::BTreeMap::<&str, usize>::new();
        let mut models = vec![designed(&device.device, 3)];
        // Cropped, and with atoms of other lengths.
        let padded = vec![LayerShape::new(3, 4, 2).with_padding(1), LayerShape::new(4, 2, 1)];
        let config = ModelConfig::new(SignalShape::new(2, 12, 12), padded);
        let made = DesignConfig { steps: 100, ..DesignConfig::new(config, vec![1]) }.init(&device.device).unwrap();
        let mut filters = made.filters();
        filters[1] = filters[1].clone() * tensor(&[0.7, 1.0, 1.2, 0.9], [4, 1, 1, 1], &device.device);
        let made = Mlcsc::from_filters(made.config().clone(), filters).unwrap();
        let profile = ModelProfile::new(&made, made.config().signal).unwrap();
        models.push((made, profile));
        for (model, profile) in &models {
            let operator = model.operator(model.config().signal, OperatorForm::Matrix).unwrap();
            for (seed, nonzeros, relative) in [(1, 1, 0.02), (2, 1, 0.2), (3, 2, 0.02), (4, 3, 0.01)] {
                let mut rng = generator(seed);
                let sampler = SampleConfig::new(nonzeros).init(&operator).unwrap();
                let samples = sampler.sample(40, &mut rng).unwrap();
                let length = relative * norm(&wide(&host(samples.signals.clone()))) as f32 / 40f32.sqrt();
                let noisy = add_noise(samples.signals.clone(), length, &mut rng);
                let geometry = profile.geometry();
                let told = |noise: &[f32]| Noise::measured(geometry, noise);
                let known = TrialSignal::of(profile, &noisy, &samples.representations, told).unwrap();
                for theorem in Theorem::all() {
                    for trial in trial::run(&theorem, profile, &operator, &known).unwrap() {
                        let Ok(errors) = &trial.errors else { continue };
                        *checked.entry(theorem.name()).or_default() += 1;
                        // Codes and noise are rounded to `f32`, and the solver stops at a gap of 1e-6.
                        check_promise(&theorem, &trial.promise, errors, 1e-4);
                        for bound in trial.promise.layers.iter().flatten() {
                            if let Some(paper) = bound.paper {
                                let same = if theorem.name() == "omp-projection" { bound.global } else { bound.local };
                                assert!(same <= paper * (1.0 + 1e-6), "{}: {bound:?}", theorem.name());
                            }
                        }
                    }
                }
            }
        }
        check_all_measured(&checked, 30);
    });
}

/// Uniqueness against brute force: every other support that is as sparse is tried.
#[test]
fn what_is_called_unique_is_unique() {
    on_every_device(|device| {
        let (mut proven, mut open) = (0, 0);
        for seed in 0..40 {
            let mut random = rng(seed);
            let columns: Vec<Vec<f32>> = (0..8)
                .map(|_| {
                    let values = normals(&mut random, 6);
                    let length = norm(&wide(&values)) as f32;
                    values.into_iter().map(|value| value / length).collect()
                })
                .collect();
            let case = dense_case(&columns);
            let (model, profile) = profile_of(&case, &device.device);
            let mut code = vec![0.0; 8];
            (0..1 + seed as usize % 2).for_each(|index| code[(seed as usize + 3 * index) % 8] = 1.0 + index as f32);
            let levels = levels_of(&case, &model, &profile, &code);
            let certificate = Certificate::new(&profile, levels, 0.0, 0.0, &Theorem::all()).unwrap();
            if certificate.is_unique() {
                proven += 1;
                let signal = case.explicit().synthesize(&wide(&code));
                let size = code.iter().filter(|value| **value != 0.0).count();
                for support in 0u32..256 {
                    let chosen: Vec<usize> = (0..8).filter(|index| support >> index & 1 == 1).collect();
                    if chosen.len() > size || chosen.iter().all(|&index| code[index] != 0.0) && chosen.len() == size {
                        continue;
                    }
                    let columns: Vec<Vec<f64>> = chosen.iter().map(|&index| wide(&columns[index])).collect();
                    assert!(distance(&columns, &signal) > 1e-3, "seed {seed}: {chosen:?} makes the same signal");
                }
            } else {
                open += 1;
            }
        }
        assert!(proven >= 10 && open >= 10, "{proven} {open}");
        // Three columns in a plane: the third is a combination of the two, and nothing is claimed.
        let root = 0.5f32.sqrt();
        let case = dense_case(&[vec![1.0, 0.0], vec![0.0, 1.0], vec![root, root]]);
        let (model, profile) = profile_of(&case, &device.device);
        let levels = levels_of(&case, &model, &profile, &[1.0, 1.0, 0.0]);
        let certificate = Certificate::new(&profile, levels, 0.0, 0.0, &[]).unwrap();
        assert_eq!(certificate.uniqueness, [Uniqueness::Unproven]);
        assert!(certificate.stability[0].is_err());
    });
}

/// Distance of a signal from the span of columns, by Gram-Schmidt.
fn distance(columns: &[Vec<f64>], signal: &[f64]) -> f64 {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let reduce = |vector: &[f64], basis: &[Vec<f64>]| {
        basis.iter().fold(vector.to_vec(), |rest, direction| {
            let part = inner(&rest, direction);
            rest.iter().zip(direction).map(|(value, entry)| value - part * entry).collect::<Vec<f64>>()
        })
    };
    for column in columns {
        let rest = reduce(column, &basis);
        let length = norm(&rest);
        if length > 1e-9 {
            basis.push(rest.into_iter().map(|value| value / length).collect());
        }
    }
    norm(&reduce(signal, &basis))
}

/// A deeper representation that is the only one makes the shallower ones so, and a known shallower one helps a deeper.
#[test]
fn certainty_travels_through_the_layers() {
    on_every_device(|device| {
        let (model, profile) = designed(&device.device, 5);
        let operator = model.operator(model.config().signal, OperatorForm::Cascade).unwrap();
        let sampler = SampleConfig::new(2).init(&operator).unwrap();
        let samples = sampler.sample(20, &mut generator(1)).unwrap();
        let (mut granted, mut bounded) = (0, 0);
        for levels in Levels::of(&profile, &samples.representations).unwrap() {
            let certificate = Certificate::new(&profile, levels, 0.1, 0.2, &Theorem::all()).unwrap();
            let holds = |index: usize| {
                let level = &certificate.levels.layers[index];
                let own = (level.own_stripe as f64) < profile.own[index].uniqueness_limit();
                ((level.effective_stripe as f64) < profile.effective[index].uniqueness_limit(), own)
            };
            for (index, reason) in certificate.uniqueness.iter().enumerate() {
                match reason {
                    Uniqueness::Effective => assert!(holds(index).0),
                    Uniqueness::Own => assert!(!holds(index).0 && holds(index).1 && index > 0),
                    Uniqueness::Inherited => {
                        assert!(
                            certificate.uniqueness[index + 1..].iter().any(|reason| *reason != Uniqueness::Unproven)
                        );
                    }
                    Uniqueness::Unproven => assert!(!holds(index).0),
                }
            }
            granted += certificate.uniqueness.iter().filter(|reason| **reason != Uniqueness::Unproven).count();
            bounded += certificate.stability.iter().filter(|bound| bound.is_ok()).count();
            // E + ‖y − x̂‖ in place of 2E.
            let double = Theorem::ModelProjection.promise(&profile, &certificate.levels, &Noise::of_length(0.15));
            for (found, expected) in certificate.stability.iter().zip(&double.layers) {
                match (found, expected) {
                    (Ok(found), Ok(expected)) => assert!((found.global / expected.global - 1.0).abs() < 1e-9),
                    (found, expected) => assert_eq!(found, expected),
                }
            }
        }
        assert!(granted >= 20 && bounded >= 10, "{granted} {bounded}");
    });
}

/// Membership by plain loops in `f64`: every representation is made by the next, and no window holds more than its limit.
fn assert_member(case: &Case, representations: &[Vec<f32>], signal: &[f32], limits: &[usize]) {
    let layers = explicit_layers(case);
    let near = |found: &[f32], expected: &[f64]| {
        let largest = expected.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
        found.iter().zip(expected).all(|(found, expected)| (f64::from(*found) - expected).abs() <= 1e-5 * largest)
    };
    assert!(near(signal, &layers[0].synthesize(&wide(&representations[0]))));
    for (index, pair) in representations.windows(2).enumerate() {
        assert!(near(&pair[0], &layers[index + 1].synthesize(&wide(&pair[1]))), "layer {}", index + 1);
    }
    for ((layer, code), &limit) in layers.iter().zip(representations).zip(limits) {
        let [_, rows, columns] = layer.code;
        let radius: Vec<isize> =
            (0..2).map(|axis| layer.kernel[axis].div_ceil(layer.stride[axis]) as isize - 1).collect();
        for row in 0..rows as isize {
            for column in 0..columns as isize {
                let inside = |index: &usize| {
                    let place = ((index / columns % rows) as isize, (index % columns) as isize);
                    (place.0 - row).abs() <= radius[0] && (place.1 - column).abs() <= radius[1]
                };
                let nonzeros = (0..code.len()).filter(inside).filter(|&index| code[index] != 0.0).count();
                assert!(nonzeros <= limit, "{nonzeros} in a stripe of at most {limit}");
            }
        }
    }
}

#[test]
fn samples_are_in_the_model() {
    on_every_device(|device| {
        let mut drawn = 0;
        for seed in 0..12 {
            let mut random = rng(seed);
            let padding = [0, seed as usize % 2];
            let layers = vec![
                LayerShape::new(3, 3, 1 + seed as usize % 2).with_padding(padding[1]),
                LayerShape::new(4, Pair([2, 3]), 1),
                LayerShape::new(5, 2, 1).with_padding(padding[0]),
            ];
            let mut case = Case::random(SignalShape::new(1, 14, 15), layers, seed);
            // Sparse deeper dictionaries, some atoms sparser than others.
            for filters in &mut case.filters[1..] {
                let len = filters.len();
                (0..len).for_each(|index| filters[index] *= f32::from(random.random_bool(0.25)));
            }
            let model = case.model(&device.device);
            let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
            let limits = vec![14, 6, 2];
            let config = SampleConfig { nonzeros: Some(3), ..SampleConfig::within(limits.clone()) };
            for config in [config, SampleConfig::within(limits.clone())] {
                let sampler = match config.clone().init(&operator) {
                    Ok(sampler) => sampler,
                    // Some of these random dictionaries admit nothing: it must be true.
                    Err(error) => {
                        assert_nothing_fits(&case, &limits, &error.to_string());
                        continue;
                    }
                };
                let Ok(samples) = sampler.sample(6, &mut generator(seed)) else { continue };
                let all: Vec<Vec<f32>> = samples.representations.iter().map(|gamma| host(gamma.clone())).collect();
                let signals = host(samples.signals.clone());
                for index in 0..6 {
                    let own: Vec<Vec<f32>> = all
                        .iter()
                        .map(|gamma| gamma[index * gamma.len() / 6..(index + 1) * gamma.len() / 6].to_vec())
                        .collect();
                    let signal = &signals[index * signals.len() / 6..(index + 1) * signals.len() / 6];
                    assert_member(&case, &own, signal, &limits);
                    let nonzeros = own[2].iter().filter(|value| **value != 0.0).count();
                    assert!(config.nonzeros.is_none_or(|wanted| wanted == nonzeros) && nonzeros > 0);
                    assert!(own[2].iter().all(|value| *value == 0.0 || (1.0..=2.0).contains(&value.abs())));
                    drawn += 1;
                }
            }
        }
        assert!(drawn >= 60, "{drawn}");
    });
}

/// Every single atom at every place exceeds some limit.
fn assert_nothing_fits(case: &Case, limits: &[usize], error: &str) {
    let explicit = case.explicit();
    let geometry = case.config.geometry().unwrap();
    let len: usize = explicit.code().iter().product();
    for place in 0..len {
        let mut code = vec![0.0; len];
        code[place] = 1.0;
        let representations = explicit.propagate(&code);
        let exceeds = representations.iter().zip(geometry.layers()).zip(limits).any(|((gamma, layer), &limit)| {
            let gamma: Vec<f32> = gamma.iter().map(|&value| value as f32).collect();
            stripe_norm(&gamma, layer.code, own_radius(layer)) > limit
        });
        assert!(exceeds, "refused ({error}), but place {place} would do");
    }
}

#[test]
fn samplers_refuse_what_cannot_be() {
    on_every_device(|device| {
        // Dense D_2: one atom fills a whole window of γ_1.
        let case =
            Case::random(SignalShape::new(1, 10, 10), vec![LayerShape::new(3, 3, 1), LayerShape::new(2, 3, 1)], 1);
        let model = case.model(&device.device);
        let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
        let message = |config: SampleConfig| config.init(&operator).map(drop).unwrap_err().to_string();
        let refusal = message(SampleConfig::within(vec![5, 1]));
        assert!(refusal.contains("limit of layer 1") && refusal.contains("at least 27"), "{refusal}");
        assert_nothing_fits(&case, &[5, 1], &refusal);
        assert!(message(SampleConfig::new(0)).contains("1 to 72"));
        assert!(message(SampleConfig::new(73)).contains("1 to 72"));
        assert!(message(SampleConfig::within(vec![5])).contains("2, one per layer"));
        assert!(message(SampleConfig::within(vec![0, 1])).contains("layer 1"));
        assert!(message(SampleConfig { nonzeros: None, ..SampleConfig::new(1) }).contains("limits"));
        assert!(message(SampleConfig { amplitudes: [2.0, 1.0], ..SampleConfig::new(1) }).contains("2 to 1"));
        // A single stripe of γ_2 covers nearly everything: at most a few of so many non-zeros fit.
        let crowded =
            SampleConfig { nonzeros: Some(60), ..SampleConfig::within(vec![300, 2]) }.init(&operator).unwrap();
        let refusal = crowded.sample(1, &mut generator(0)).unwrap_err().to_string();
        assert!(refusal.contains("limit 2 of layer 2"), "{refusal}");
        // What does fit is drawn.
        let samples = SampleConfig::within(vec![60, 2]).init(&operator).unwrap().sample(3, &mut generator(0)).unwrap();
        assert!(samples.stripe_norms[1].iter().all(|&norm| norm == 2));
        // Codes given by someone else are held to the limits too.
        let sampler = SampleConfig::within(vec![60, 2]).init(&operator).unwrap();
        let full = tensor(&vec![1.0; operator.code().len()], operator.code().batched(1), &device.device);
        assert!(sampler.complete(full).unwrap_err().to_string().contains("stripe of γ_1"));
    });
}

/// Where the condition holds, every code within the deepest limit keeps all the others.
#[test]
fn sparse_dictionaries_admit_every_sparse_code() {
    on_every_device(|device| {
        let mut checked = 0;
        for seed in 0..20 {
            let layers = vec![
                LayerShape::new(4, 3, 1 + seed as usize % 2),
                LayerShape::new(5, 3, 1),
                LayerShape::new(4, 2, 1 + seed as usize % 3),
            ];
            let config = ModelConfig::new(SignalShape::new(1, 21, 20), layers);
            let model = DesignConfig { steps: 0, seed, ..DesignConfig::new(config.clone(), vec![2, 1]) }
                .init(&device.device)
                .unwrap();
            let geometry = config.geometry().unwrap();
            // The least limits that satisfy the condition.
            let mut limits = vec![1, 1, 2];
            for index in (0..2).rev() {
                let condition = |limits: &[usize]| sparsity_conditions(&model, &geometry, limits).unwrap()[index];
                while !condition(&limits).holds() {
                    limits[index] += 1;
                }
            }
            assert_eq!(sparsity_conditions(&model, &geometry, &limits).unwrap()[0].atom_nonzeros, 2);
            let operator = model.operator(config.signal, OperatorForm::Cascade).unwrap();
            let deepest = geometry.layers()[2].clone();
            let mut random = generator(seed);
            // Codes as full as the deepest limit allows, with no eye on the others.
            for _ in 0..10 {
                let mut code = vec![0.0f32; deepest.code.len()];
                for _ in 0..100 {
                    let place = random.random_range(0..code.len());
                    let before = code[place];
                    code[place] = 1.0;
                    if stripe_norm(&code, deepest.code, own_radius(&deepest)) > limits[2] {
                        code[place] = before;
                    }
                }
                let sampler = SampleConfig::within(limits.clone()).init(&operator).unwrap();
                sampler.complete(tensor(&code, deepest.code.batched(1), &device.device)).unwrap();
                checked += 1;
            }
        }
        assert_eq!(checked, 200);
    });
}

#[test]
fn designed_models_are_as_ordered() {
    on_every_device(|device| {
        let layers = vec![LayerShape::new(6, 5, 2), LayerShape::new(8, 3, 1)];
        let config = DesignConfig {
            steps: 150,
            ..DesignConfig::new(ModelConfig::new(SignalShape::new(1, 19, 19), layers), vec![4])
        };
        let model = config.init(&device.device).unwrap();
        let drawn = DesignConfig { steps: 0, ..config.clone() }.init(&device.device).unwrap();
        let profiles = [&model, &drawn].map(|model| ModelProfile::new(model, model.config().signal).unwrap());
        for (filters, nonzeros) in model.filters().into_iter().zip([25, 4]) {
            let filters = HostFilters::from_tensor(filters);
            for atom in 0..filters.atoms() {
                let found = filters.atom(atom).iter().filter(|value| **value != 0.0).count();
                assert_eq!(found, nonzeros);
            }
            assert!(filters.norms().iter().all(|norm| (norm - 1.0).abs() < 1e-5));
        }
        // Optimised, and never better than possible. Measured: 0.16 and 0.55 of the random ones.
        let coherence = |profile: &ModelProfile| [profile.own[0].mutual(), profile.effective[1].mutual()];
        let (found, random) = (coherence(&profiles[0]), coherence(&profiles[1]));
        assert!(found[0] < 0.3 * random[0] && found[1] < 0.8 * random[1], "{found:?} of {random:?}");
        assert!(profiles[0].own.iter().chain(&profiles[0].effective).all(|own| own.welch <= own.mutual() + 1e-5));
        // The same again, bit for bit.
        let again = config.init(&device.device).unwrap();
        for (first, second) in model.filters().into_iter().zip(again.filters()) {
            assert_eq!(host(first), host(second));
        }
        let refused = |config: DesignConfig| config.init(&device.device).map(drop).unwrap_err().to_string();
        assert!(
            refused(DesignConfig { atom_nonzeros: vec![], ..config.clone() }).contains("one per layer after the first")
        );
        assert!(refused(DesignConfig { atom_nonzeros: vec![55], ..config.clone() }).contains("1 to 54"));
    });
}
