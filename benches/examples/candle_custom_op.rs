//! The exact product as an operation of candle, with its gradients: `y = x w^T` with the same bits
//! on every instruction set and number of threads.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --example candle_custom_op`

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor, Var};
use concord_kernels::coded::Precision;
use concord_kernels::ops::Atoms;
use concord_kernels::{Device, KernelError, Tensor as ExactTensor};

const P: Precision = Precision::I16;

/// `y = x w^T` for x `[m, k]` and w `[n, k]`.
struct ExactProduct {
    device: Device,
}

fn failed(error: KernelError) -> Error {
    Error::Msg(error.to_string())
}

/// A contiguous matrix of f32 as ours.
fn matrix(storage: &CpuStorage, layout: &Layout) -> Result<ExactTensor> {
    let (rows, cols) = layout.shape().dims2()?;
    let CpuStorage::F32(elements) = storage else {
        return Err(Error::Msg("the exact product takes f32".to_string()));
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        let reason = "the exact product takes contiguous tensors: call contiguous() first";
        return Err(Error::Msg(reason.to_string()));
    };
    ExactTensor::new(&[rows, cols], elements[start..end].to_vec()).map_err(failed)
}

fn ours(tensor: &Tensor) -> Result<ExactTensor> {
    let (rows, cols) = tensor.dims2()?;
    let elements = tensor.flatten_all()?.to_vec1::<f32>()?;
    ExactTensor::new(&[rows, cols], elements).map_err(failed)
}

fn theirs(tensor: &ExactTensor) -> Result<Tensor> {
    let elements = tensor.data().to_vec();
    Tensor::from_vec(elements, tensor.rows_cols(), &candle_core::Device::Cpu)
}

impl ExactProduct {
    fn forward(
        &self,
        x: &ExactTensor,
        w: &ExactTensor,
    ) -> std::result::Result<ExactTensor, KernelError> {
        let code = |x: &ExactTensor| self.device.code(x, x.rows_cols().1, P);
        self.device.matmul(&code(x)?, &code(w)?)
    }

    /// Gradients of x and of w.
    fn backward(
        &self,
        x: &ExactTensor,
        w: &ExactTensor,
        dy: &ExactTensor,
    ) -> std::result::Result<(ExactTensor, ExactTensor), KernelError> {
        let (rows, depth) = x.rows_cols();
        let (x, w) = (
            self.device.code(x, depth, P)?,
            self.device.code(w, depth, P)?,
        );
        let dx = self.device.matmul_dx(dy, &w, P)?;
        let dw = self.device.matmul_dw(dy, &x, &Atoms::new(1, rows), P)?;
        Ok((dx, dw))
    }
}

impl CustomOp2 for ExactProduct {
    fn name(&self) -> &'static str {
        "exact-product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (matrix(x, x_layout)?, matrix(w, w_layout)?);
        if x.rows_cols().1 != w.rows_cols().1 {
            let reason = format!("x is {:?}, w is {:?}: rows differ", x.shape(), w.shape());
            return Err(Error::Msg(reason));
        }
        let y = self.forward(&x, &w).map_err(failed)?;
        let shape = Shape::from(y.rows_cols());
        Ok((CpuStorage::F32(y.into_values().map_err(failed)?), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradients = self.backward(&ours(x)?, &ours(w)?, &ours(dy)?);
        let (dx, dw) = gradients.map_err(failed)?;
        Ok((Some(theirs(&dx)?), Some(theirs(&dw)?)))
    }
}

/// The product and the gradient of w of its sum, in bits.
fn bits(device: Device, x: &Tensor, w: &Var) -> Result<Vec<u32>> {
    let y = x.apply_op2(w.as_tensor(), ExactProduct { device })?;
    let gradients = y.sum_all()?.backward()?;
    let Some(dw) = gradients.get(w.as_tensor()) else {
        return Err(Error::Msg("w has no gradient".to_string()));
    };
    let mut numbers = y.flatten_all()?.to_vec1::<f32>()?;
    numbers.extend(dw.flatten_all()?.to_vec1::<f32>()?);
    Ok(numbers.into_iter().map(f32::to_bits).collect())
}

fn main() -> Result<()> {
    let cpu = candle_core::Device::Cpu;
    let x = Tensor::randn(0f32, 1.0, (65, 300), &cpu)?;
    let w = Var::from_tensor(&Tensor::randn(0f32, 1.0, (33, 300), &cpu)?)?;
    let expected = bits(Device::Reference, &x, &w)?;
    for threads in [1, 2, 3] {
        let device = Device::cpu(threads);
        let name = device.name();
        if bits(device, &x, &w)? != expected {
            return Err(Error::Msg(format!(
                "{name} gives other bits than the reference"
            )));
        }
        println!("{name}: product and gradient have the bits of the scalar reference");
    }
    Ok(())
}
