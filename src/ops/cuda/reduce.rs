//! Sums over rows in two stages: partial sums of chunks of rows, then of the chunks, in a fixed order.

use candle_core::{CudaDevice, DType, Result, Shape, Tensor, bail};

use super::memory::{Buffer, address, device, name, vector};
use super::module::launch;

/// Blocks that fill a large card a few times over.
const BLOCKS: usize = 512;
/// Rows below which a chunk is not worth a block.
const FEWEST_ROWS: usize = 32;

/// How the rows of each group are cut up, and the grid of blocks of 32 × 8 threads that goes over them.
pub(super) struct Chunks {
    /// Rows of one group.
    pub group_rows: usize,
    /// Rows of one chunk; the last of a group may have fewer.
    pub rows: usize,
    /// Chunks of one group.
    pub count: usize,
    /// Groups.
    pub groups: usize,
    columns: usize,
}

impl Chunks {
    pub const BLOCK: (u32, u32, u32) = (32, 8, 1);

    /// For `rows` rows of `width` elements in `groups` groups, `vector` elements a thread.
    pub fn new(rows: usize, width: usize, groups: usize, vector: usize) -> Self {
        let group_rows = rows / groups;
        let columns = width.div_ceil(32 * vector);
        let most = group_rows.div_ceil(FEWEST_ROWS).max(1);
        let wanted = (BLOCKS / (groups * columns).max(1)).clamp(1, most);
        let rows = group_rows.div_ceil(wanted);
        Self { group_rows, rows, count: group_rows.div_ceil(rows), groups, columns }
    }

    /// For blocks that have whole rows.
    pub fn of_rows(rows: usize, groups: usize) -> Self {
        Self::new(rows, 1, groups, 1)
    }

    pub fn grid(&self) -> (u32, u32, u32) {
        (self.columns as u32, (self.groups * self.count) as u32, 1)
    }

    /// Memory of the partial sums: `width` of them for each chunk.
    pub fn partial(&self, device: &CudaDevice, width: usize) -> Result<Buffer> {
        Buffer::new(device, self.groups * self.count * width, DType::F32)
    }

    /// Adds up the chunks of each group: (groups, width).
    pub fn fold(
        &self,
        device: &CudaDevice,
        partial: &Buffer,
        width: usize,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Tensor> {
        let Some(kind) = name(dtype) else { bail!("sums over rows are f32 or bf16, not {dtype:?}") };
        let out = Buffer::new(device, shape, dtype)?;
        let fold =
            Fold { groups: self.groups, chunks: self.count, width, from: width, to: width, add: false };
        fold.run(device, kind, partial.address()?, out.address()?)?;
        Ok(out.tensor())
    }

    /// Adds up columns `first..first + width` of partial sums of `from` columns, for each group: into f32 rows at `out`
    /// that lie `to` elements apart.
    pub fn fold_part(
        &self,
        device: &CudaDevice,
        partial: &Buffer,
        (first, width, from): (usize, usize, usize),
        out: u64,
        to: usize,
    ) -> Result<()> {
        let fold = Fold { groups: self.groups, chunks: self.count, width, from, to, add: false };
        fold.run(device, "f32", partial.address()? + 4 * first as u64, out)
    }

    /// The same added up over all groups, on top of what lies at `out` where `add` says so.
    pub fn fold_all(
        &self,
        device: &CudaDevice,
        partial: &Buffer,
        (first, width, from): (usize, usize, usize),
        (out, add): (u64, bool),
    ) -> Result<()> {
        let fold = Fold { groups: 1, chunks: self.groups * self.count, width, from, to: width, add };
        fold.run(device, "f32", partial.address()? + 4 * first as u64, out)
    }
}

/// The second stage: which partial sums are added up, and where they go.
struct Fold {
    groups: usize,
    chunks: usize,
    width: usize,
    from: usize,
    to: usize,
    add: bool,
}

impl Fold {
    fn run(&self, device: &CudaDevice, kind: &str, partial: u64, out: u64) -> Result<()> {
        let grid = (self.width.div_ceil(32) as u32, self.groups as u32, 1);
        launch!(
            device,
            REDUCE,
            format!("fold_{kind}"),
            grid,
            Chunks::BLOCK,
            0,
            partial,
            out,
            self.width as i32,
            self.chunks as i32,
            self.from as i32,
            self.to as i32,
            i32::from(self.add)
        );
        Ok(())
    }
}

/// Sum over all rows of a contiguous f32 or bf16 tensor (…, width), as `dtype`: (width).
pub(super) fn column_sums(x: &Tensor, width: usize, dtype: DType) -> Result<Tensor> {
    let (device, chunks, partial) = partial_column_sums(x, width)?;
    chunks.fold(&device, &partial, width, width, dtype)
}

/// The same in f32 to a device address, on top of what lies there where `add` says so.
pub(super) fn write_column_sums(x: &Tensor, width: usize, (out, add): (u64, bool)) -> Result<()> {
    let (device, chunks, partial) = partial_column_sums(x, width)?;
    chunks.fold_all(&device, &partial, (0, width, width), (out, add))
}

fn partial_column_sums(x: &Tensor, width: usize) -> Result<(CudaDevice, Chunks, Buffer)> {
    let (Some(device), Some(kind)) = (device(&[x]), name(x.dtype())) else {
        bail!("column sums need a contiguous f32 or bf16 tensor, not {:?}", x.dtype())
    };
    let v = vector(width, &[address(x)?]);
    let chunks = Chunks::new(x.elem_count() / width, width, 1, v);
    let partial = chunks.partial(&device, width)?;
    launch!(
        device,
        REDUCE,
        format!("column_sums_{kind}_v{v}"),
        chunks.grid(),
        Chunks::BLOCK,
        0,
        address(x)?,
        partial.address()?,
        width as i32,
        chunks.group_rows as i32,
        chunks.rows as i32,
        chunks.count as i32
    );
    Ok((device, chunks, partial))
}
