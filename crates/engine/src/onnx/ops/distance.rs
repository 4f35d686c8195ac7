//! Distances between rows, which nearest neighbors and kernels are made of.

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor, bounded};

/// `CDist` of ONNX Runtime: from each row of the first input to each of the second.
pub(super) fn between(node: &Node<'_>) -> Result<Run, Fault> {
    let is_rooted = match node.text("metric")? {
        Some("euclidean") => true,
        None | Some("sqeuclidean") => false,
        Some(_) => return Err(Fault::new("is not supported with this `metric`")),
    };
    Ok(Box::new(move |inputs, context| {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let ([rows, width], [others, other_width]) = (&a.shape[..], &b.shape[..]) else {
            return Err(Fault::new("takes matrices"));
        };
        if width != other_width {
            return Err(Fault(format!("rows of {width} and {other_width} columns")));
        }
        let shape = vec![*rows, *others];
        context.spend(bounded(&shape)?.saturating_mul((*width).max(1)))?;
        let (left, right) = (a.to_doubles()?, b.to_doubles()?);
        let mut made = Vec::with_capacity(rows * others);
        for row in 0..*rows {
            let own = &left[row * width..][..*width];
            made.extend((0..*others).map(|other| {
                let pairs = own.iter().zip(&right[other * width..][..*width]);
                let sum: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
                if is_rooted { sum.sqrt() } else { sum }
            }));
        }
        let data = match (&a.data, &b.data) {
            (Data::Float(_), Data::Float(_)) => {
                Data::Float(made.into_iter().map(|x| x as f32).collect())
            }
            (Data::Double(_), Data::Double(_)) => Data::Double(made),
            _ => return Err(a.wrong_type()),
        };
        Ok(vec![Tensor::new(shape, data)])
    }))
}
