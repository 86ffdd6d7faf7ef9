//! Gradients of the filters against finite differences of the data term in `f64`.

use crate::common;

use common::{Case, WAYS, host, inner, on_random_models, rng, tensor, wide};
use mlcsc::learn::gradient::{filter_gradients, through_effective_filters};
use rand::RngExt;

/// Signals in a batch; more than one, since gradients are summed over it.
const COUNT: usize = 3;

/// Entries of every layer's filters that are moved.
const ENTRIES: usize = 12;

/// ½‖D^(L)γ − y‖² summed over the batch, with the filters in `f64`.
fn data_term(case: &Case, filters: &[Vec<f64>], codes: &[f64], signals: &[f64]) -> f64 {
    let explicit = common::explicit::Explicit::new(&case.config, filters.to_vec());
    let code_len = codes.len() / COUNT;
    let batch = codes.chunks_exact(code_len).zip(signals.chunks_exact(case.config.signal.len()));
    let term = |(code, signal): (&[f64], &[f64])| {
        let residual: Vec<f64> = explicit.synthesize(code).iter().zip(signal).map(|(made, y)| made - y).collect();
        0.5 * inner(&residual, &residual)
    };
    batch.map(term).sum()
}

/// Derivatives of the data term by central differences. It is quadratic in every single entry, so that they are exact for
/// any step, up to rounding.
fn check(case: &Case, codes: &[f32], signals: &[f32], gradients: &[Vec<f32>], what: &str) {
    let mut rng = rng(case.seed);
    let mut filters: Vec<Vec<f64>> = case.filters.iter().map(|filters| wide(filters)).collect();
    let (codes, signals) = (wide(codes), wide(signals));
    for (layer, gradient) in gradients.iter().enumerate() {
        assert_eq!(gradient.len(), filters[layer].len());
        // Rounding of `f32` is relative to the layer's gradient as a whole.
        let scale = gradient.iter().map(|value| f64::from(value.abs())).fold(1.0, f64::max);
        for _ in 0..ENTRIES.min(gradient.len()) {
            let entry = rng.random_range(0..gradient.len());
            let start = filters[layer][entry];
            filters[layer][entry] = start + 0.5;
            let above = data_term(case, &filters, &codes, &signals);
            filters[layer][entry] = start - 0.5;
            let below = data_term(case, &filters, &codes, &signals);
            filters[layer][entry] = start;
            let (found, expected) = (f64::from(gradient[entry]), above - below);
            assert!(
                (found - expected).abs() <= 1e-5 * scale,
                "{what}: W_{}[{entry}]: found {found}, expected {expected}, scale {scale}",
                layer + 1
            );
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    on_random_models(48, 11, |case, device| {
        let model = case.model(&device.device);
        let (codes, signals) = (case.codes(COUNT), case.signals(COUNT));
        for way in WAYS {
            let Ok(operator) = model.operator(case.config.signal, way) else { continue };
            let batch = tensor(&codes, operator.code().batched(COUNT), &device.device);
            let residuals =
                operator.synthesize(batch.clone()) - tensor(&signals, operator.signal().batched(COUNT), &device.device);
            let gradients = filter_gradients(&model, &operator, residuals, batch);
            let dims: Vec<_> = gradients.iter().map(|gradient| gradient.dims()).collect();
            assert_eq!(dims, model.filters().iter().map(|filters| filters.dims()).collect::<Vec<_>>());
            let gradients: Vec<_> = gradients.into_iter().map(host).collect();
            check(case, &codes, &signals, &gradients, &way.to_string());
        }
    });
}

/// 〈G, effective filters〉 as a function of the filters has the gradients that come through the effective filters; moving one
/// layer's filters by a multiple of themselves must change it by just that multiple (it is linear in every layer).
#[test]
fn gradients_through_effective_filters_are_homogeneous() {
    on_random_models(32, 12, |case, device| {
        let model = case.model(&device.device);
        let filters = model.effective_filters(model.depth());
        let dims = filters.dims();
        let direction = common::normals(&mut rng(case.seed), dims.iter().product());
        let (filters, direction_wide) = (wide(&host(filters)), wide(&direction));
        let value = inner(&filters, &direction_wide);
        let gradients = through_effective_filters(&model, tensor(&direction, dims, &device.device));
        for (gradient, filters) in gradients.into_iter().zip(&case.filters) {
            let found = inner(&wide(&host(gradient)), &wide(filters));
            let scale = common::norm(&direction_wide);
            assert!((found - value).abs() <= 1e-5 * scale * 4.0, "found {found}, expected {value}");
        }
    });
}
