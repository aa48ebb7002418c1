//! Lua tables of numbers as tensors and back.

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use mlua::{Lua, Table, Value};

use super::types::describe;

/// Nested tables of numbers, read row by row.
#[derive(Default)]
struct Reader {
    values: Vec<f64>,
    dims: Vec<usize>,
    place: Vec<usize>,
}

/// A tensor from a number or from nested tables of numbers, all rows equally long.
///
/// # Errors
/// Ragged tables and entries that are no numbers, with their place.
pub fn to_tensor(value: &Value, dtype: DType, device: &Device) -> anyhow::Result<Tensor> {
    let mut reader = Reader::default();
    reader.read(value)?;
    let Reader { values, dims, .. } = reader;
    Ok(match dtype {
        DType::F64 => Tensor::from_vec(values, dims, device)?,
        DType::U8 | DType::U32 | DType::I64 => {
            let whole =
                values.iter().map(|&value| integer(value, dtype)).collect::<anyhow::Result<Vec<i64>>>()?;
            Tensor::from_vec(whole, dims, device)?.to_dtype(dtype)?
        }
        _ => {
            let single: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            Tensor::from_vec(single, dims, device)?.to_dtype(dtype)?
        }
    })
}

fn integer(value: f64, dtype: DType) -> anyhow::Result<i64> {
    let (low, high) = match dtype {
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::U32 => (0.0, f64::from(u32::MAX)),
        _ => (-9e15, 9e15),
    };
    match value.fract() == 0.0 && (low..=high).contains(&value) {
        true => Ok(value as i64),
        false => bail!("{value} is not a value of dtype {}", dtype.as_str()),
    }
}

impl Reader {
    fn read(&mut self, value: &Value) -> anyhow::Result<()> {
        match value {
            Value::Integer(number) => self.number(*number as f64),
            Value::Number(number) => self.number(*number),
            Value::Table(table) => self.row(table),
            other => {
                bail!(
                    "element{}: expected a number or a table of numbers, found {}",
                    self.place(),
                    describe(other)
                )
            }
        }
    }

    fn number(&mut self, value: f64) -> anyhow::Result<()> {
        if self.place.len() != self.dims.len() {
            bail!("element{} is a number, earlier ones in its place are tables", self.place());
        }
        self.values.push(value);
        Ok(())
    }

    fn row(&mut self, table: &Table) -> anyhow::Result<()> {
        let length = table.raw_len();
        match self.dims.get(self.place.len()) {
            None if self.place.len() > 16 => bail!("tables are nested more than 16 deep"),
            None if !self.values.is_empty() => {
                bail!("element{} is a table, earlier ones in its place are numbers", self.place())
            }
            None => self.dims.push(length),
            Some(&expected) if expected != length => {
                bail!("row{} has {length} elements, earlier rows have {expected}", self.place())
            }
            Some(_) => {}
        }
        for index in 1..=length {
            self.place.push(index);
            self.read(&table.raw_get(index)?)?;
            self.place.pop();
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.place.iter().map(|index| format!("[{index}]")).collect()
    }
}

/// A Lua number from a tensor of one element.
///
/// # Errors
/// When there are several elements.
pub fn to_number(tensor: &Tensor) -> anyhow::Result<Value> {
    if tensor.elem_count() != 1 {
        bail!("a tensor of shape {:?} is not one number", tensor.dims());
    }
    let mut numbers = numbers(tensor)?;
    numbers.pop().context("a tensor of one element has one number")
}

/// Nested tables from a tensor; a number for a tensor without dimensions.
///
/// # Errors
/// When Lua is out of memory.
pub fn to_table(lua: &Lua, tensor: &Tensor) -> anyhow::Result<Value> {
    let numbers = numbers(tensor)?;
    nest(lua, &numbers, tensor.dims())
}

fn nest(lua: &Lua, numbers: &[Value], dims: &[usize]) -> anyhow::Result<Value> {
    let Some((&length, inner)) = dims.split_first() else {
        return Ok(numbers.first().cloned().unwrap_or(Value::Nil));
    };
    if inner.is_empty() {
        return Ok(Value::Table(lua.create_sequence_from(numbers.iter().cloned())?));
    }
    let stride = inner.iter().product::<usize>();
    let table = lua.create_table_with_capacity(length, 0)?;
    for index in 0..length {
        table.raw_push(nest(lua, &numbers[index * stride..(index + 1) * stride], inner)?)?;
    }
    Ok(Value::Table(table))
}

/// The elements in row-major order.
fn numbers(tensor: &Tensor) -> anyhow::Result<Vec<Value>> {
    let flat = tensor.flatten_all()?;
    Ok(match tensor.dtype().is_int() {
        true => flat.to_dtype(DType::I64)?.to_vec1::<i64>()?.into_iter().map(Value::Integer).collect(),
        false => flat.to_dtype(DType::F64)?.to_vec1::<f64>()?.into_iter().map(Value::Number).collect(),
    })
}
