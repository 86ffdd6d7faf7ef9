//! Mutual coherence against all pairs of columns of the explicit matrix.

use crate::common;

use common::{Case, inner, norm, on_random_models, tensor};
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::theory::coherence::mutual_coherence;

#[test]
fn coherence_is_the_largest_correlation_of_two_columns() {
    on_random_models(64, 14, |case, device| {
        // The first layer of the model, unpadded: with padding, atoms are counted whole although columns are cropped.
        let shape = &case.config.layers[0];
        let layer = LayerShape::new(shape.atoms, shape.kernel, shape.stride);
        let positions = [1 + case.seed as usize % 5, 1 + case.seed as usize / 5 % 5];
        let extent = |axis: usize| (positions[axis] - 1) * shape.stride.0[axis] + shape.kernel.0[axis];
        let signal = SignalShape::new(case.config.signal.channels, extent(0), extent(1));
        let mut single = Case::random(signal, vec![layer], case.seed);
        // With their weight at the ends, filters correlate most where they barely overlap: at the four corners, or at the two
        // that a shift down and to the left brings together.
        let Pair([height, width]) = shape.kernel;
        for (index, value) in single.filters[0].iter_mut().enumerate() {
            let (row, column) = (index / width % height, index % width);
            let corner = [0, height - 1].contains(&row) && [0, width - 1].contains(&column);
            if corner && (case.seed % 3 == 0 || case.seed % 3 == 1 && (row == 0) != (column == 0)) {
                *value *= 30.0;
            }
        }
        let matrix = single.explicit().matrix();
        let mut expected = 0.0f64;
        for (index, first) in matrix.columns.iter().enumerate() {
            for second in &matrix.columns[..index] {
                expected = expected.max(inner(first, second).abs() / (norm(first) * norm(second)));
            }
        }
        let geometry = single.config.geometry().unwrap();
        let layer = &geometry.layers()[0];
        let filters = tensor(&single.filters[0], layer.filter_dims(), &device.device);
        let found = f64::from(mutual_coherence(filters, layer));
        // Rounded up, by no more than the rounding of `f32`.
        assert!(
            found >= expected * (1.0 - 1e-14) && found <= expected * (1.0 + 2e-7),
            "found {found}, expected {expected}"
        );
    });
}

/// Two atoms that are equal have coherence 1; a zero atom is orthogonal to everything; a single column has no other.
#[test]
fn coherence_of_special_dictionaries() {
    on_random_models(8, 15, |case, device| {
        let signal = SignalShape::new(2, 9, 8);
        let mut twins = Case::random(signal, vec![LayerShape::new(3, Pair([3, 2]), 1)], case.seed);
        let atom = 2 * 3 * 2;
        twins.filters[0].copy_within(0..atom, atom);
        let coherence = |case: &Case| {
            let geometry = case.config.geometry().unwrap();
            let layer = &geometry.layers()[0];
            mutual_coherence(tensor(&case.filters[0], layer.filter_dims(), &device.device), layer)
        };
        assert_eq!(coherence(&twins), 1.0);
        // Not even rounding makes the zero atom count.
        twins.filters[0][atom..].fill(0.0);
        twins.config.signal = SignalShape::new(2, 3, 2);
        assert_eq!(coherence(&twins), 0.0);
        let single = Case::random(SignalShape::new(2, 3, 2), vec![LayerShape::new(1, Pair([3, 2]), 1)], case.seed);
        assert_eq!(coherence(&single), 0.0);
    });
}
