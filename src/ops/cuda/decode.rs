//! The next token of one sequence through a whole model, by launches that a CUDA graph repeats.
//!
//! Everything lies in memory that stays where it is: weights, the cache's buffers, and scratch. The kernels read the token's id
//! and position from memory too, so the same launches serve every token until the cache's buffers grow.

use std::fmt;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, DevicePtr};
use candle_core::{CudaDevice, DType, Result, Tensor};

use super::activation::number;
use super::layer::{LayerSetting, LayerWeights};
use super::memory::{Buffer, address, alone, device, name};
use super::module::launch;

/// Threads of a block of products, and the rows that it computes at a time.
const THREADS: u32 = 256;
const ROWS: usize = 16;
/// Blocks of the unembedding, each with as many rows: four for each of a large card's processors.
const HEAD_BLOCKS: usize = 528;
/// Threads of a block of attention, and the channels of a head that it has room for.
const ATTEND_THREADS: u32 = 512;
const MOST_CHANNELS: usize = 256;
/// Positions that a block attends over, more only where that would take more than `MOST_PARTS` blocks a head.
const CHUNK: usize = 512;
const MOST_PARTS: usize = 16;
/// Rows of the residual stream that a block adds to.
const OUT_ROWS: usize = 4;
/// Widest stream in f32 that a block's shared memory holds.
const MOST_WIDTH: usize = 12 * 1024;

/// What a token meets on its way through a model.
pub struct ModelWeights {
    /// (V, D)
    pub embed: Tensor,
    pub layers: Vec<LayerWeights>,
    /// Scale and shift of the final norm, each (D).
    pub norm: (Tensor, Tensor),
    /// (V, D)
    pub unembed: Tensor,
    pub setting: LayerSetting,
}

/// One token's way through a model over the buffers of one cache.
pub struct TokenStep {
    /// In front of what it points to, since fields are dropped in this order.
    replay: Replay,
    model: ModelWeights,
    /// Keys and values of each layer, each (1, H, capacity, C).
    buffers: Vec<[Tensor; 2]>,
    size: Size,
    kind: &'static str,
    device: CudaDevice,
    /// The token's id and its position.
    input: CudaSlice<u32>,
    /// The residual stream (D).
    stream: Tensor,
    /// The packed projection (3·D), f32.
    packed: Tensor,
    /// The MLP's hidden values (inner).
    hidden: Tensor,
    /// What each block of attention found, (parts, D) and (parts, H, 2), f32.
    partial: Tensor,
    moments: Tensor,
    /// (V), f32.
    logits: Tensor,
}

struct Size {
    width: usize,
    inner: usize,
    vocabulary: usize,
    heads: usize,
    channels: usize,
    /// Positions in the cache's buffers, and those that a block attends over.
    capacity: usize,
    chunk: usize,
}

/// How the launches are issued.
#[derive(Debug)]
enum Replay {
    /// The first time one by one, which loads their kernels: that cannot be captured.
    First,
    /// From now on captured.
    Loaded,
    Captured(Graph),
    /// The driver would not capture or repeat them: always one by one.
    Refused,
}

struct Graph(CudaGraph);

// SAFETY: the driver's graphs may be used from any thread, one at a time, and `launch` needs the only reference.
unsafe impl Send for Graph {}
// SAFETY: a shared reference gives access to nothing.
unsafe impl Sync for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

impl fmt::Debug for TokenStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenStep").field("replay", &self.replay).finish_non_exhaustive()
    }
}

impl Graph {
    fn launch(&mut self) -> Result<()> {
        self.0.launch().w()
    }

    /// Launches it for the first time, if the driver lets it.
    fn launched(mut self) -> Option<Self> {
        self.launch().ok()?;
        Some(self)
    }
}

impl TokenStep {
    /// For a model and the buffers (1, H, capacity, C) of keys and values of each of its layers, in which the step will write;
    /// `None` where the kernels do not fit: a sequential residual, dtypes other than f32 or bf16 throughout, widths that are no
    /// multiples of 8 or very large, more than 256 channels a head, weights of which a gradient is wanted.
    ///
    /// # Errors
    /// Too little memory.
    pub fn over(model: ModelWeights, buffers: Vec<[Tensor; 2]>) -> Result<Option<Self>> {
        let operands: Vec<&Tensor> = model.operands().into_iter().chain(buffers.iter().flatten()).collect();
        let (Some(device), Some(kind)) = (device(&operands), name(model.embed.dtype())) else {
            return Ok(None);
        };
        let dtype = model.embed.dtype();
        let tables = model.setting.rotary.tables();
        let turned = model.setting.rotary.rotated() == 0
            || tables.iter().all(|t| t.device().is_cuda() && t.is_contiguous() && t.dtype() == DType::F32);
        let Some(size) = Size::of(&model, &buffers)? else { return Ok(None) };
        if !turned || operands.iter().any(|t| t.dtype() != dtype || t.track_op()) {
            return Ok(None);
        }
        for operand in &operands {
            if address(operand)? % 16 != 0 {
                return Ok(None);
            }
        }
        let new = |n: usize, dtype| Buffer::new(&device, n, dtype).map(Buffer::tensor);
        let (parts, float) = (size.parts(), DType::F32);
        Ok(Some(Self {
            replay: Replay::First,
            kind,
            input: device.alloc_zeros(2)?,
            stream: new(size.width, dtype)?,
            packed: new(3 * size.width, float)?,
            hidden: new(size.inner, dtype)?,
            partial: new(parts * size.width, float)?,
            moments: new(parts * size.heads * 2, float)?,
            logits: new(size.vocabulary, float)?,
            model,
            buffers,
            size,
            device,
        }))
    }

    /// The logits behind the token of that id at that position, whose keys and values join the buffers. Those of all positions
    /// before must be there.
    ///
    /// # Shapes
    /// Result (V), f32.
    ///
    /// # Errors
    /// Those of the driver. The id must lie in the vocabulary, the position in buffers and rotary tables.
    pub fn run(&mut self, token: u32, position: usize) -> Result<Tensor> {
        let within = position < self.size.capacity && position < self.model.setting.rotary.positions();
        if !within || token as usize >= self.size.vocabulary {
            candle_core::bail!("there is no token {token} at position {position}");
        }
        self.device.memcpy_htod(&[token, position as u32], &mut self.input)?;
        self.replay()?;
        // The next step writes over its own.
        self.logits.copy()
    }

    fn replay(&mut self) -> Result<()> {
        match &mut self.replay {
            Replay::First => {
                self.launch()?;
                self.replay = Replay::Loaded;
            }
            Replay::Captured(graph) => graph.launch()?,
            Replay::Refused => self.launch()?,
            Replay::Loaded => match self.capture().and_then(Graph::launched) {
                Some(graph) => self.replay = Replay::Captured(graph),
                None => {
                    self.replay = Replay::Refused;
                    self.launch()?;
                }
            },
        }
        Ok(())
    }

    /// The launches as a graph, none of them executed; `None` where the driver refuses.
    fn capture(&self) -> Option<Graph> {
        let (stream, _alone) = (self.device.cuda_stream(), alone());
        // What other threads ask of the driver meanwhile is no concern of this capture.
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).ok()?;
        let launched = self.launch();
        // The capture ends whatever happened in it. Where an error of earlier work is reported instead, it goes on, and is
        // ended by the second call; where it ended, that call changes nothing.
        let end = || stream.end_capture(CUgraphInstantiate_flags(0));
        let graph = end().or_else(|_| end());
        launched.ok()?;
        graph.ok().flatten().map(Graph)
    }

    fn launch(&self) -> Result<()> {
        self.embed()?;
        for (layer, buffers) in self.model.layers.iter().zip(&self.buffers) {
            self.project(layer)?;
            self.attend(buffers)?;
            self.add(layer)?;
        }
        self.unembed()
    }

    fn input(&self) -> u64 {
        self.input.device_ptr(self.input.stream()).0
    }

    fn embed(&self) -> Result<()> {
        let (threads, vectors) = (128, self.size.width / 8);
        launch!(
            self.device,
            DECODE,
            format!("decode_embed_{}", self.kind),
            (vectors.div_ceil(threads) as u32, 1, 1),
            (threads as u32, 1, 1),
            0,
            self.input(),
            address(&self.model.embed)?,
            address(&self.stream)?,
            self.size.width as i32
        );
        Ok(())
    }

    /// Both norms, the packed projection, and the MLP's hidden values.
    fn project(&self, layer: &LayerWeights) -> Result<()> {
        let ([(scale1, shift1), (scale2, shift2)], [packed, _, up, _]) = (&layer.norms, &layer.maps);
        let Size { width, inner, .. } = self.size;
        let first_blocks = (3 * width).div_ceil(ROWS);
        launch!(
            self.device,
            DECODE,
            format!("decode_project_{}", self.kind),
            ((first_blocks + inner.div_ceil(ROWS)) as u32, 1, 1),
            (THREADS, 1, 1),
            self.size.shared(),
            address(&self.stream)?,
            address(scale1)?,
            address(shift1)?,
            address(&packed.0)?,
            bias(packed)?,
            address(&self.packed)?,
            address(scale2)?,
            address(shift2)?,
            address(&up.0)?,
            bias(up)?,
            address(&self.hidden)?,
            width as i32,
            inner as i32,
            first_blocks as i32,
            self.model.setting.eps as f32,
            number(self.model.setting.activation)
        );
        Ok(())
    }

    /// The token's key and value into the buffers, and attention over all that are there.
    fn attend(&self, [keys, values]: &[Tensor; 2]) -> Result<()> {
        let Size { heads, channels, capacity, chunk, .. } = self.size;
        let rotary = &self.model.setting.rotary;
        let half = rotary.rotated() / 2;
        let [cos, sin] = match rotary.tables() {
            [cos, sin] if half > 0 => [address(cos)?, address(sin)?],
            _ => [0, 0],
        };
        let vector = self.size.vector();
        let lanes = if vector == 8 { (channels / 8).next_power_of_two() } else { 32 };
        launch!(
            self.device,
            DECODE,
            format!("decode_attend_{}_v{vector}", self.kind),
            (heads as u32, self.size.parts() as u32, 1),
            (ATTEND_THREADS, 1, 1),
            0,
            address(&self.packed)?,
            cos,
            sin,
            address(keys)?,
            address(values)?,
            self.input(),
            address(&self.partial)?,
            address(&self.moments)?,
            capacity as i32,
            channels as i32,
            half as i32,
            chunk as i32,
            lanes as i32,
            std::f32::consts::LOG2_E / (channels as f32).sqrt()
        );
        Ok(())
    }

    /// The attention's output projection and the MLP's second one, added to the stream.
    fn add(&self, layer: &LayerWeights) -> Result<()> {
        let [_, dense, _, down] = &layer.maps;
        let Size { width, inner, channels, chunk, .. } = self.size;
        launch!(
            self.device,
            DECODE,
            format!("decode_add_{}_v{}", self.kind, self.size.vector()),
            ((width / OUT_ROWS) as u32, 1, 1),
            (THREADS, 1, 1),
            0,
            address(&self.stream)?,
            address(&dense.0)?,
            bias(dense)?,
            address(&down.0)?,
            bias(down)?,
            address(&self.partial)?,
            address(&self.moments)?,
            address(&self.hidden)?,
            self.input(),
            width as i32,
            inner as i32,
            channels as i32,
            chunk as i32
        );
        Ok(())
    }

    /// The final norm and the logits.
    fn unembed(&self) -> Result<()> {
        let ((scale, shift), size) = (&self.model.norm, &self.size);
        launch!(
            self.device,
            DECODE,
            format!("decode_head_{}", self.kind),
            (size.vocabulary.div_ceil(ROWS).min(HEAD_BLOCKS) as u32, 1, 1),
            (THREADS, 1, 1),
            size.shared(),
            address(&self.stream)?,
            address(scale)?,
            address(shift)?,
            address(&self.model.unembed)?,
            address(&self.logits)?,
            size.width as i32,
            size.vocabulary as i32,
            self.model.setting.eps as f32
        );
        Ok(())
    }
}

impl ModelWeights {
    fn operands(&self) -> Vec<&Tensor> {
        let ends = [&self.embed, &self.norm.0, &self.norm.1, &self.unembed];
        ends.into_iter().chain(self.layers.iter().flat_map(LayerWeights::tensors)).collect()
    }
}

impl Size {
    /// `None` where the kernels do not fit, or the shapes do not belong together.
    fn of(model: &ModelWeights, buffers: &[[Tensor; 2]]) -> Result<Option<Self>> {
        let (Some(layer), Some([keys, _])) = (model.layers.first(), buffers.first()) else { return Ok(None) };
        let (vocabulary, width) = model.embed.dims2()?;
        let (inner, heads) = (layer.maps[2].0.dim(0)?, model.setting.heads);
        let (_, _, capacity, channels) = keys.dims4()?;
        let chunk = CHUNK.max(capacity.div_ceil(MOST_PARTS));
        let size = Self { width, inner, vocabulary, heads, channels, capacity, chunk };
        let whole = [width, inner].iter().all(|n| n.is_multiple_of(8)) && width <= MOST_WIDTH;
        let room = [1, heads, capacity, channels];
        let alike = model.layers.iter().all(|layer| size.is_of(layer))
            && model.layers.len() == buffers.len()
            && buffers.iter().flatten().all(|buffer| buffer.dims() == room)
            && model.unembed.dims() == [vocabulary, width]
            && [&model.norm.0, &model.norm.1].iter().all(|t| t.dims() == [width]);
        let heads_fit = heads * channels == width && channels <= MOST_CHANNELS;
        Ok((model.setting.parallel && whole && alike && heads_fit).then_some(size))
    }

    fn is_of(&self, layer: &LayerWeights) -> bool {
        let &Self { width, inner, .. } = self;
        let shapes = [[3 * width, width], [width, width], [inner, width], [width, inner]];
        let maps = layer.maps.iter().zip(shapes).all(|((weight, bias), [outputs, inputs])| {
            weight.dims() == [outputs, inputs] && bias.iter().all(|bias| bias.dims() == [outputs])
        });
        maps && layer.norms.iter().all(|(scale, shift)| scale.dims() == [width] && shift.dims() == [width])
    }

    /// Blocks a head of attention over the whole capacity.
    fn parts(&self) -> usize {
        self.capacity.div_ceil(self.chunk)
    }

    /// Channels of a head that are read at a time.
    fn vector(&self) -> usize {
        if self.channels.is_multiple_of(8) { 8 } else { 1 }
    }

    /// Bytes of the stream in shared memory, in f32.
    fn shared(&self) -> u32 {
        (4 * self.width) as u32
    }
}

/// Address of a map's bias, 0 where it has none.
fn bias((_, bias): &(Tensor, Option<Tensor>)) -> Result<u64> {
    bias.as_ref().map_or(Ok(0), address)
}
