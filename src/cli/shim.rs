//! Temporary stand-in for the data module.
use crate::data::{DataConfig, Dataset, Source};
use crate::error::{Error, Result};
use crate::model::geometry::SignalShape;
use std::path::Path;
use std::sync::Arc;
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}
pub fn read_array(path: &Path) -> Result<Array> {
    let file = std::fs::File::open(path).map_err(Error::read(path))?;
    let file = npyz::NpyFile::new(file).map_err(|e| Error::format(path, e.to_string()))?;
    let shape = file.shape().iter().map(|&e| e as usize).collect();
    let values: Vec<f32> = file.into_vec().map_err(|e| Error::format(path, e.to_string()))?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::format(path, "NaN"));
    }
    Ok(Array { shape, values })
}
struct Npy(Array, SignalShape, String);
impl Source for Npy {
    fn len(&self) -> usize {
        self.0.shape[0]
    }
    fn shape(&self) -> SignalShape {
        self.1
    }
    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        let len = self.1.len();
        for (i, o) in indices.iter().zip(out.chunks_mut(len)) {
            o.copy_from_slice(&self.0.values[i * len..][..len]);
        }
        Ok(())
    }
    fn describe(&self) -> String {
        self.2.clone()
    }
}
pub fn open(config: &DataConfig) -> Result<Dataset> {
    let array = read_array(Path::new(&config.source))?;
    let s = &array.shape;
    let shape = match s.len() {
        4 => SignalShape::new(s[1], s[2], s[3]),
        _ => SignalShape::new(1, s[1], s[2]),
    };
    let all: Arc<dyn Source> = Arc::new(Npy(array, shape, config.source.clone()));
    Ok(Dataset { train: all.clone(), test: all.clone(), all, has_test_set: false })
}
