//! The model from its definition, by plain loops in `f64`, sharing no code with the crate; the lasso on top of it.

use mlcsc::model::ModelConfig;

/// A dense matrix by columns.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub rows: usize,
    pub columns: Vec<Vec<f64>>,
}

impl Matrix {
    /// The product with a vector.
    pub fn apply(&self, vector: &[f64]) -> Vec<f64> {
        assert_eq!(vector.len(), self.columns.len());
        let mut out = vec![0.0; self.rows];
        for (column, &value) in self.columns.iter().zip(vector).filter(|(_, value)| **value != 0.0) {
            out.iter_mut().zip(column).for_each(|(sum, entry)| *sum += value * entry);
        }
        out
    }

    /// The transpose's product with a vector.
    pub fn apply_transposed(&self, vector: &[f64]) -> Vec<f64> {
        self.columns.iter().map(|column| super::inner(column, vector)).collect()
    }

    /// The matrix product.
    pub fn times(&self, right: &Self) -> Self {
        Self { rows: self.rows, columns: right.columns.iter().map(|column| self.apply(column)).collect() }
    }

    /// Largest eigenvalue of the Gram matrix, from below, by power iteration.
    pub fn squared_norm(&self, iterations: usize) -> f64 {
        squared_norm(self.columns.len(), iterations, |vector| self.apply_transposed(&self.apply(vector)))
    }
}

/// Largest eigenvalue of a positive semi-definite operator, from below, by power iteration from a fixed start.
pub fn squared_norm(len: usize, iterations: usize, apply: impl Fn(&[f64]) -> Vec<f64>) -> f64 {
    let mut vector = super::wide(&super::normals(&mut super::rng(1), len));
    let mut largest = 0.0;
    for _ in 0..iterations {
        let norm = super::norm(&vector);
        if norm == 0.0 {
            return 0.0;
        }
        vector.iter_mut().for_each(|value| *value /= norm);
        let next = apply(&vector);
        largest = super::inner(&vector, &next);
        vector = next;
    }
    largest
}

/// One dictionary: W\[m, c, y, x\] with its signal and code shapes as \[channels, height, width\].
#[derive(Debug, Clone)]
pub struct Layer {
    pub filters: Vec<f64>,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub signal: [usize; 3],
    pub code: [usize; 3],
}

impl Layer {
    /// Calls `visit(signal index, code index, filter index)` for every product that makes up D: the atom at position (i, j)
    /// begins at row i·s − p and column j·s − p, and what falls outside the signal is cropped.
    pub fn visit(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [channels, height, width] = self.signal;
        let [atoms, rows, columns] = self.code;
        for atom in 0..atoms {
            for i in 0..rows {
                for j in 0..columns {
                    let code = (atom * rows + i) * columns + j;
                    for channel in 0..channels {
                        for a in 0..self.kernel[0] {
                            for b in 0..self.kernel[1] {
                                let y = (i * self.stride[0] + a).checked_sub(self.padding[0]);
                                let x = (j * self.stride[1] + b).checked_sub(self.padding[1]);
                                let (Some(y), Some(x)) = (y, x) else { continue };
                                if y < height && x < width {
                                    let filter =
                                        ((atom * channels + channel) * self.kernel[0] + a) * self.kernel[1] + b;
                                    visit((channel * height + y) * width + x, code, filter);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// D γ.
    pub fn synthesize(&self, code: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.signal.iter().product()];
        self.visit(|sample, index, filter| out[sample] += self.filters[filter] * code[index]);
        out
    }

    /// Dᵀ x.
    pub fn analyze(&self, signal: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.code.iter().product()];
        self.visit(|sample, index, filter| out[index] += self.filters[filter] * signal[sample]);
        out
    }

    /// D as a matrix.
    pub fn matrix(&self) -> Matrix {
        let rows = self.signal.iter().product();
        let mut columns = vec![vec![0.0; rows]; self.code.iter().product()];
        self.visit(|sample, index, filter| columns[index][sample] += self.filters[filter]);
        Matrix { rows, columns }
    }
}

/// The whole cascade.
#[derive(Debug, Clone)]
pub struct Explicit {
    pub layers: Vec<Layer>,
}

impl Explicit {
    pub fn new(config: &ModelConfig, filters: Vec<Vec<f64>>) -> Self {
        let mut signal = [config.signal.channels, config.signal.height, config.signal.width];
        let layers = config.layers.iter().zip(filters).map(|(shape, filters)| {
            let (kernel, stride, padding) = (shape.kernel.0, shape.stride.0, shape.padding.0);
            let positions = |axis: usize| (signal[axis + 1] + 2 * padding[axis] - kernel[axis]) / stride[axis] + 1;
            let code = [shape.atoms, positions(0), positions(1)];
            let layer = Layer { filters, kernel, stride, padding, signal, code };
            signal = code;
            layer
        });
        Self { layers: layers.collect() }
    }

    /// The model whose filters are the absolute values: what it makes of absolute values bounds the rounding errors.
    pub fn absolute(&self) -> Self {
        let mut absolute = self.clone();
        for layer in &mut absolute.layers {
            layer.filters.iter_mut().for_each(|value| *value = value.abs());
        }
        absolute
    }

    /// Shape of γ_L.
    pub fn code(&self) -> [usize; 3] {
        self.layers[self.layers.len() - 1].code
    }

    /// D_1 … D_L as the product of the layers' matrices.
    pub fn matrix(&self) -> Matrix {
        let (first, deeper) = self.layers.split_first().unwrap();
        deeper.iter().fold(first.matrix(), |product, layer| product.times(&layer.matrix()))
    }

    /// γ_1 … γ_L for γ_L.
    pub fn propagate(&self, code: &[f64]) -> Vec<Vec<f64>> {
        let mut out = vec![code.to_vec()];
        for layer in self.layers[1..].iter().rev() {
            out.push(layer.synthesize(&out[out.len() - 1]));
        }
        out.reverse();
        out
    }

    /// x = D^(L) γ_L.
    pub fn synthesize(&self, code: &[f64]) -> Vec<f64> {
        self.layers[0].synthesize(&self.propagate(code)[0])
    }

    /// D^(L)ᵀ x.
    pub fn analyze(&self, signal: &[f64]) -> Vec<f64> {
        self.layers.iter().fold(signal.to_vec(), |below, layer| layer.analyze(&below))
    }
}

/// min ½‖y − Dγ‖² + λ‖γ‖₁ on an explicit matrix.
pub struct Lasso<'a> {
    pub dictionary: &'a Matrix,
    pub signal: &'a [f64],
    pub lambda: f64,
    pub nonnegative: bool,
}

impl Lasso<'_> {
    /// The objective; infinite where the sign is violated.
    pub fn objective(&self, code: &[f64]) -> f64 {
        if self.nonnegative && code.iter().any(|&value| value < 0.0) {
            return f64::INFINITY;
        }
        let made = self.dictionary.apply(code);
        let energy: f64 = made.iter().zip(self.signal).map(|(made, signal)| (signal - made).powi(2)).sum();
        0.5 * energy + self.lambda * code.iter().map(|value| value.abs()).sum::<f64>()
    }

    /// The minimiser, by cyclic coordinate descent over all atoms until no coefficient moves by more than 1e-11.
    pub fn solve(&self) -> Vec<f64> {
        let columns = &self.dictionary.columns;
        let energies: Vec<f64> = columns.iter().map(|column| super::inner(column, column)).collect();
        let mut code = vec![0.0; columns.len()];
        let mut residual = self.signal.to_vec();
        for _ in 0..200_000 {
            let mut moved = 0.0f64;
            for (atom, column) in columns.iter().enumerate().filter(|&(atom, _)| energies[atom] > 0.0) {
                let target = super::inner(column, &residual) + energies[atom] * code[atom];
                let shrunk = if self.nonnegative {
                    (target - self.lambda).max(0.0)
                } else {
                    target.signum() * (target.abs() - self.lambda).max(0.0)
                };
                let change = shrunk / energies[atom] - code[atom];
                if change != 0.0 {
                    code[atom] += change;
                    residual.iter_mut().zip(column).for_each(|(sample, entry)| *sample -= change * entry);
                    moved = moved.max(change.abs());
                }
            }
            if moved <= 1e-11 {
                break;
            }
        }
        code
    }
}
