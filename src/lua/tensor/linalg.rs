//! Matrix products.

use anyhow::{Context, bail};
use candle_core::{DType, Tensor};

use super::arithmetic::{joint_shape, promoted};
use super::handle::{Handle, TensorArg};
use crate::lua::catalogue::Entry;
use crate::lua::memory;
use crate::lua::register::Members;
use crate::ops;

/// Matrix products.
pub fn members(class: &mut Members<'_, Handle>) {
    class.method(
        Entry {
            name: "Tensor:matmul",
            about: "Matrix product over the last two dimensions; the leading ones broadcast. A tensor of one dimension \
                    counts as a row on the left and as a column on the right.",
            params: &[("other", "Tensor", "the right factor")],
            returns: &[("Tensor", "(…, n, k) by (…, k, m) gives (…, n, m)")],
            example: "local y = lft.ones({4, 2, 3}):matmul(lft.ones({3, 5}))\nassert(y:shape()[3] == 5 and y[1][1][1]:item() == 3)",
        },
        |_, this: &Handle, other: TensorArg| Ok(Handle::new(matmul(&this.get()?, &other.0)?)),
    );
}

/// `left · right` with NumPy's rules for one dimension and for leading dimensions.
///
/// # Errors
/// When the inner lengths differ or the leading dimensions do not broadcast.
pub fn matmul(left: &Tensor, right: &Tensor) -> anyhow::Result<Tensor> {
    if left.rank() == 0 || right.rank() == 0 {
        bail!("a matrix product needs dimensions; write a * b for numbers");
    }
    let (left, right) = promoted(left, right)?;
    let whole = left.dtype().is_int();
    let (left, right) = match whole {
        true => (left.to_dtype(DType::F64)?, right.to_dtype(DType::F64)?),
        false => (left, right),
    };
    let rows = if left.rank() == 1 { left.unsqueeze(0)? } else { left.clone() };
    let columns = if right.rank() == 1 { right.unsqueeze(1)? } else { right.clone() };
    let (n, k) = (rows.dims()[rows.rank() - 2], rows.dims()[rows.rank() - 1]);
    let (inner, m) = (columns.dims()[columns.rank() - 2], columns.dims()[columns.rank() - 1]);
    if k != inner {
        bail!(
            "{:?} by {:?}: the last dimension of the left, {k}, must equal the rows of the right, {inner}",
            left.dims(),
            right.dims()
        );
    }
    let batch = joint_shape(&rows.dims()[..rows.rank() - 2], &columns.dims()[..columns.rank() - 2])
        .context("leading dimensions")?;
    memory::check(&[batch.as_slice(), &[n, m]].concat(), rows.dtype())?;
    let product = product(&rows, &columns)?;
    let product = if right.rank() == 1 { product.squeeze(product.rank() - 1)? } else { product };
    let product = if left.rank() == 1 {
        product.squeeze(product.rank() - 1 - usize::from(right.rank() > 1))?
    } else {
        product
    };
    Ok(if whole { product.to_dtype(DType::I64)? } else { product })
}

/// A shared right factor multiplies all rows at once instead of being copied for every batch.
fn product(rows: &Tensor, columns: &Tensor) -> candle_core::Result<Tensor> {
    if columns.rank() == 2 && rows.rank() > 2 {
        let mut dims = rows.dims().to_vec();
        let k = dims[dims.len() - 1];
        let count = dims[..dims.len() - 1].iter().product::<usize>();
        let last = dims.len() - 1;
        dims[last] = columns.dims()[1];
        return ops::matmul(&rows.reshape((count, k))?, &readable(columns)?)?.reshape(dims);
    }
    if rows.rank() == 2 && columns.rank() == 2 {
        return ops::matmul(&readable(rows)?, &readable(columns)?);
    }
    readable(rows)?.broadcast_matmul(&readable(columns)?)
}

/// candle multiplies dense matrices and plain transposes of them.
fn readable(tensor: &Tensor) -> candle_core::Result<Tensor> {
    match tensor.rank() == 2 && tensor.t()?.is_contiguous() {
        true => Ok(tensor.clone()),
        false => tensor.contiguous(),
    }
}
