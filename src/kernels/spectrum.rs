//! Certified upper bounds of ‖D^(L)‖², the Lipschitz constant that first-order pursuits need.
//!
//! A power iteration approaches the norm from below, so its result is no bound. Two rigorous ways from above:
//!
//! - *Powers of the Gram matrix.* ‖Gᵖ‖_F² is the sum of all eigenvalues' powers 2p. A power iteration's vector comes with an interval
//!   that one of the eigenvalues lies in; what the sum has beyond that one's power bounds all others. Where one stands out, the
//!   two agree after no squaring or a few. At worst, p = 64 by six squarings, the bound exceeds the norm of a
//!   matrix of rank r by r^{1/128}: 6% for a thousand atoms.
//! - *Fourier.* A convolutional dictionary on a finite signal is a restriction of the convolution on the infinite grid, whose
//!   squared norm is the largest eigenvalue, over all frequencies ω, of T(ω)T(ω)ᴴ, with T the polyphase matrix of the filters.
//!   For a fixed vector u, uᴴT Tᴴu is a trigonometric polynomial of degree d in each direction, and the maximum of such a
//!   polynomial exceeds its maximum on N equispaced points by at most 1/cos(πd/N) (Ehlich and Zeller 1964). Sixteen points
//!   per degree cost 4% in two dimensions and make the bound independent of the signal's size.

use crate::kernels::product::product;
use burn::tensor::Tensor;
use rayon::prelude::*;
use std::f64::consts::PI;

/// Squarings of the Gram matrix at most; the power is 2 to this.
const SQUARINGS: u32 = 6;

/// Products with a vector before every squaring.
const ITERATIONS: usize = 16;

/// Part by which a bound may exceed a Rayleigh quotient, which the norm is no less than, without being worth another squaring.
const SLACK: f64 = 5e-3;

/// Covers the rounding of the products in `f32`.
const ROUNDING_MARGIN: f64 = 1.0 + 1e-4;

/// Grid points per degree of the trigonometric polynomial.
const OVERSAMPLING: usize = 16;

/// An upper bound of the largest eigenvalue of a symmetric positive semi-definite matrix G.
///
/// With a unit vector v, θ = vᵀGv and ε = ‖Gv − θv‖, some eigenvalue μ_j lies in [θ − ε, θ + ε]. With S = ‖Gᵖ‖_F² = Σ μ_i^(2p), all
/// others are at most (S − (θ − ε)^(2p))^(1/2p). The largest is one of these or that one.
pub(crate) fn power_bound(gram: Tensor<2>) -> f64 {
    let host = |scalar: Tensor<2>| f64::from(crate::device::scalar::<2, _, f32>(scalar));
    let norm_of = |matrix: &Tensor<2>| matrix.clone().square().sum().sqrt().reshape([1, 1]);
    let frobenius = |matrix: &Tensor<2>| host(norm_of(matrix));
    let mut norm = frobenius(&gram);
    if norm == 0.0 {
        return 0.0;
    }
    // After k squarings matrix = (G / scale)^(2^k), of norm 1, with ln(scale) kept.
    let mut matrix = gram.clone() / norm as f32;
    let mut log_scale = norm.ln();
    let mut power = 1.0;
    // Of no symmetry. A start that misses the largest eigenvalue makes the bound looser, not wrong.
    let start: Vec<f32> = (0..gram.dims()[0]).map(|place| 1.0 + (place as f32 * 2.3).sin()).collect();
    let mut vector = Tensor::<1>::from_floats(start.as_slice(), &gram.device()).unsqueeze_dim::<2>(1);
    let mut best = f64::INFINITY;
    for squarings in 0..=SQUARINGS {
        for _ in 0..ITERATIONS {
            let image = product(matrix.clone(), vector);
            vector = image.clone() / norm_of(&image);
        }
        let image = product(gram.clone(), vector.clone());
        let quotient = (vector.clone() * image.clone()).sum().reshape([1, 1]);
        let distance = host(norm_of(&(image - vector.clone() * quotient.clone())));
        let quotient = host(quotient);
        let all = log_scale.exp();
        // A vector that has vanished says nothing.
        let least = if distance.is_finite() { (quotient - distance).max(0.0) } else { 0.0 };
        let rest = (1.0 - (least / all).powf(2.0 * power)).max(0.0) + (ROUNDING_MARGIN - 1.0);
        let others = all * rest.powf(0.5 / power);
        best = best.min(all);
        if least > 0.0 {
            best = best.min(others.max(quotient + distance));
        }
        if squarings == SQUARINGS || best <= (1.0 + SLACK) * quotient {
            break;
        }
        matrix = product(matrix.clone(), matrix);
        power *= 2.0;
        norm = frobenius(&matrix);
        log_scale += norm.ln() / power;
        matrix = matrix / norm as f32;
    }
    best * ROUNDING_MARGIN
}

/// Bound for one convolutional dictionary on signals of any size, by Fourier.
///
/// # Shapes
/// - filters: `[atoms, channels, kernel height, kernel width]`.
pub(crate) fn of_filters(filters: Tensor<4>, stride: [usize; 2]) -> f64 {
    let [atoms, channels, height, width] = filters.dims();
    let values: Vec<f64> = crate::device::read(filters).iter::<f32>().map(f64::from).collect();
    let phases = [height.div_ceil(stride[0]), width.div_ceil(stride[1])];
    let degree = phases.map(|phase| phase - 1);
    let grid = degree.map(|degree| if degree == 0 { 1 } else { OVERSAMPLING * degree });
    let excess: f64 = (0..2)
        .map(|axis| if degree[axis] == 0 { 1.0 } else { 1.0 / (PI * degree[axis] as f64 / grid[axis] as f64).cos() })
        .product();
    let polyphase = channels * stride[0] * stride[1];
    // Filters are real, so ω and −ω agree: half of one axis is enough.
    let largest = (0..=grid[1] / 2)
        .into_par_iter()
        .map(|horizontal| {
            // First along the rows, for one horizontal frequency: one complex number per filter, channel, row and phase.
            let rotation: Vec<(f64, f64)> = (0..phases[1]).map(|b| cis(horizontal * b, grid[1])).collect();
            let rows = atoms * channels * height;
            let mut partial = vec![(0.0, 0.0); rows * stride[1]];
            for row in 0..rows {
                for column in 0..width {
                    let value = values[row * width + column];
                    let (cosine, sine) = rotation[column / stride[1]];
                    let sum = &mut partial[row * stride[1] + column % stride[1]];
                    *sum = (sum.0 + value * cosine, sum.1 + value * sine);
                }
            }
            let mut transfer = vec![(0.0, 0.0); atoms * polyphase];
            let mut largest = 0.0f64;
            for vertical in 0..grid[0] {
                let rotation: Vec<(f64, f64)> = (0..phases[0]).map(|a| cis(vertical * a, grid[0])).collect();
                transfer.fill((0.0, 0.0));
                for map in 0..atoms * channels {
                    let (atom, channel) = (map / channels, map % channels);
                    for row in 0..height {
                        let (cosine, sine) = rotation[row / stride[0]];
                        for phase in 0..stride[1] {
                            let (re, im) = partial[(map * height + row) * stride[1] + phase];
                            let component = (channel * stride[0] + row % stride[0]) * stride[1] + phase;
                            let sum = &mut transfer[atom * polyphase + component];
                            *sum = (sum.0 + re * cosine - im * sine, sum.1 + re * sine + im * cosine);
                        }
                    }
                }
                largest = largest.max(squared_spectral_bound(&transfer, atoms, polyphase));
            }
            largest
        })
        .reduce(|| 0.0, f64::max);
    largest * excess * (1.0 + 1e-9)
}

/// e^{−2πi·turns/points}, with the angle reduced first.
fn cis(turns: usize, points: usize) -> (f64, f64) {
    let angle = -2.0 * PI * (turns % points) as f64 / points as f64;
    (angle.cos(), angle.sin())
}

/// Upper bound of the squared spectral norm of a complex matrix `[rows, columns]`, by powers of its smaller Gram matrix.
fn squared_spectral_bound(matrix: &[(f64, f64)], rows: usize, columns: usize) -> f64 {
    let energy: f64 = matrix.iter().map(|(re, im)| re * re + im * im).sum();
    let size = rows.min(columns);
    if size == 1 || energy == 0.0 {
        return energy;
    }
    let entry = |i: usize, k: usize| if rows <= columns { matrix[i * columns + k] } else { matrix[k * columns + i] };
    let inner = rows.max(columns);
    let product = |left: &dyn Fn(usize, usize) -> (f64, f64), inner: usize, scale: f64| {
        let mut gram = vec![(0.0, 0.0); size * size];
        for i in 0..size {
            for j in 0..=i {
                let (mut re, mut im) = (0.0, 0.0);
                for k in 0..inner {
                    let ((a, b), (c, d)) = (left(i, k), left(j, k));
                    re += a * c + b * d;
                    im += b * c - a * d;
                }
                gram[i * size + j] = (re * scale, im * scale);
                gram[j * size + i] = (re * scale, -im * scale);
            }
        }
        gram
    };
    let frobenius = |gram: &[(f64, f64)]| gram.iter().map(|(re, im)| re * re + im * im).sum::<f64>().sqrt();
    // Small matrices: a higher power costs nothing and leaves less slack.
    let mut gram = product(&entry, inner, 1.0 / energy);
    let mut norm = frobenius(&gram);
    let mut log_scale = energy.ln() + norm.ln();
    let mut power = 1.0;
    for _ in 0..SQUARINGS {
        let scaled: Vec<(f64, f64)> = gram.iter().map(|(re, im)| (re / norm, im / norm)).collect();
        // Hermitian: the square is the product with its own conjugate transpose.
        gram = product(&|i, k| scaled[i * size + k], size, 1.0);
        power *= 2.0;
        norm = frobenius(&gram);
        log_scale += norm.ln() / power;
    }
    log_scale.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use burn::tensor::{Distribution, TensorData};

    /// Spectra that are known: one eigenvalue that stands out, several that are equal, all of them, one alone, none.
    #[test]
    fn power_bounds_hold_and_are_close() {
        let device = device::named(None).unwrap();
        let size = 60;
        // A reflection I − 2uuᵀ is orthogonal.
        let direction = Tensor::<2>::random([size, 1], Distribution::Normal(0.0, 1.0), &device);
        let direction = direction.clone() / direction.square().sum().sqrt().reshape([1, 1]);
        let basis = Tensor::<2>::eye(size, &device) - direction.clone().matmul(direction.transpose()) * 2.0;
        let spectrum = |top: &[f32], rest: f32| {
            let values: Vec<f32> = top.iter().copied().chain(std::iter::repeat(rest)).take(size).collect();
            let values = Tensor::<2>::from_data(TensorData::new(values, [1, size]), &device);
            power_bound((basis.clone() * values).matmul(basis.clone().transpose()))
        };
        let close = |bound: f64, largest: f64, slack: f64| {
            assert!(bound >= largest && bound <= (1.0 + slack) * largest, "{bound} for {largest}");
        };
        close(spectrum(&[50.0], 2.0), 50.0, 6e-3);
        close(spectrum(&[50.0, 40.0, 30.0], 1.0), 50.0, 6e-3);
        close(spectrum(&[50.0, 49.9], 1.0), 50.0, 2f64.powf(1.0 / 128.0) - 1.0 + 1e-3);
        close(spectrum(&[3.0; 7], 0.5), 3.0, 7f64.powf(1.0 / 128.0) - 1.0 + 1e-3);
        close(spectrum(&[], 1.0), 1.0, 60f64.powf(1.0 / 128.0) - 1.0 + 1e-3);
        close(spectrum(&[4.0], 0.0), 4.0, 6e-3);
        assert_eq!(spectrum(&[], 0.0), 0.0);
    }

    #[test]
    fn spectral_bound_of_small_matrices() {
        // diag(3, 1) has squared norm 9; the bound's slack is 2^(1/128).
        let diagonal = [(3.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 1.0)];
        let bound = squared_spectral_bound(&diagonal, 2, 2);
        assert!((9.0..9.1).contains(&bound), "{bound}");
        // Two equal singular values are the worst case.
        let unitary = [(0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (1.0, 0.0)];
        let bound = squared_spectral_bound(&unitary, 2, 2);
        assert!((1.0 - 1e-12..1.006).contains(&bound), "{bound}");
        // A single row is its own energy.
        assert!((squared_spectral_bound(&[(1.0, 2.0), (3.0, 0.0)], 1, 2) - 14.0).abs() < 1e-12);
    }
}
