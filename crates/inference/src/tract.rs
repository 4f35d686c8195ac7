//! Graphs by tract, an ONNX engine in Rust, where the program was built with it (`--features tract`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use auspex_engine::Engine;
use tract_onnx::prelude::{
    Datum, DatumType, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _,
    TDim, TValue, Tensor as Value, TypedRunnableModel,
};
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::DimLike as _;

use crate::graph::{Element, Graph, Input, Runtime, Tensor, Values, unsupported};

/// Loads a graph.
pub(crate) fn load(bytes: &[u8]) -> Result<Box<dyn Engine>, String> {
    let (plan, inputs, outputs) = without_panics(|| open(bytes))?;
    let graph = Graph::new(plan, inputs, outputs)?;
    Ok(Box::new(graph))
}

/// A graph that is ready to run, its inputs and the names of its outputs.
fn open(bytes: &[u8]) -> Result<(Plan, Vec<Input>, Vec<String>), String> {
    let mut model = tract_onnx::onnx()
        .model_for_read(&mut &*bytes)
        .map_err(said)?;
    let rows = TDim::from(model.symbols.sym("rows"));
    let mut inputs = Vec::new();
    for (index, outlet) in model
        .input_outlets()
        .map_err(said)?
        .to_vec()
        .into_iter()
        .enumerate()
    {
        let name = model.node(outlet.node).name.clone();
        let wrong = |reason: String| format!("input `{name}`: {reason}");
        let fact = model.input_fact(index).map_err(said)?;
        let kind = fact.datum_type.concretize();
        let kind = kind.ok_or_else(|| wrong("its type is not known".into()))?;
        let dimensions = fact.shape.dims().map(|dimension| {
            let fixed = dimension.concretize();
            fixed.and_then(|dimension| dimension.to_usize().ok())
        });
        let shape: Vec<Option<usize>> = dimensions.collect();
        let element = element(kind).map_err(wrong)?;
        inputs.push(Input::new(&name, element, &shape).map_err(wrong)?);
        let open = shape.iter().map(|dimension| match dimension {
            Some(fixed) => TDim::from(*fixed),
            None => rows.clone(),
        });
        let fact = InferenceFact::dt_shape(kind, open.collect::<Vec<_>>());
        model.set_input_fact(index, fact).map_err(said)?;
    }
    let outlets = model.output_outlets().map_err(said)?;
    let names = outlets.iter().map(|outlet| {
        let label = model.outlet_label(*outlet);
        label.map_or_else(|| model.node(outlet.node).name.clone(), str::to_owned)
    });
    let names = names.collect();
    let plan = model.into_optimized().map_err(said)?;
    let plan = plan.into_runnable().map_err(said)?;
    Ok((Plan(plan), inputs, names))
}

#[derive(Debug)]
struct Plan(Arc<TypedRunnableModel>);

impl Runtime for Plan {
    const NAME: &'static str = "tract";

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        without_panics(|| {
            let given = inputs.into_iter().map(given).collect::<Result<_, _>>()?;
            let made = self.0.run(given).map_err(said)?;
            made.iter().map(taken).collect()
        })
    }
}

/// Graphs come from elsewhere, and not every combination of them was thought of.
fn without_panics<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it panicked".into()))
}

/// The error with what caused it, in one line.
fn said(error: tract_onnx::prelude::TractError) -> String {
    format!("{error:#}").replace('\n', " ")
}

fn element(kind: DatumType) -> Result<Element, String> {
    Ok(match kind {
        DatumType::F32 => Element::F32,
        DatumType::F64 => Element::F64,
        DatumType::I32 => Element::I32,
        DatumType::I64 => Element::I64,
        DatumType::Bool => Element::Bool,
        other => return Err(format!("values of the type {other:?} are not supported")),
    })
}

fn given(tensor: Tensor) -> Result<TValue, String> {
    let Tensor { shape, values } = tensor;
    let value = match values {
        Values::F32(values) => Value::from_shape(&shape, &values),
        Values::F64(values) => Value::from_shape(&shape, &values),
        Values::I32(values) => Value::from_shape(&shape, &values),
        Values::I64(values) => Value::from_shape(&shape, &values),
        Values::Bool(values) => Value::from_shape(&shape, &values),
        Values::Text(_) => return Err("texts are not supported".into()),
    };
    Ok(value.map_err(said)?.into())
}

fn taken(value: &TValue) -> Result<Tensor, String> {
    fn of<T: Datum + Copy>(value: &TValue) -> Result<Vec<T>, String> {
        let view = value.to_plain_array_view::<T>().map_err(said)?;
        Ok(view.iter().copied().collect())
    }
    let values = match value.datum_type() {
        DatumType::F32 => Values::F32(of(value)?),
        DatumType::F64 => Values::F64(of(value)?),
        DatumType::I32 => Values::I32(of(value)?),
        DatumType::I64 => Values::I64(of(value)?),
        DatumType::Bool => Values::Bool(of(value)?),
        other => return Err(unsupported(format!("{other:?}"))),
    };
    Ok(Tensor {
        shape: value.shape().to_vec(),
        values,
    })
}
