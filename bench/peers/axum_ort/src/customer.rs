//! The Santander customer as serde sees it: fields, types, categories and ranges are those of the
//! model's schema.

use serde::Deserialize;

/// An enum of texts, each of which is its place in the list for the model.
macro_rules! categories {
    ($($name:ident { $($variant:ident = $text:literal),+ $(,)? })+) => {
        $(
            #[derive(Clone, Copy, Deserialize)]
            pub enum $name {
                $(#[serde(rename = $text)] $variant),+
            }
        )+
    };
}

categories! {
    EmployeeIndex { A = "A", B = "B", F = "F", N = "N", S = "S" }
    Country { Ar = "AR", Br = "BR", Ch = "CH", De = "DE", Es = "ES", Fr = "FR", Gb = "GB", It = "IT", Mx = "MX", Pt = "PT", Us = "US", Ve = "VE" }
    Sex { H = "H", V = "V" }
    CustomerRelation { A = "A", I = "I", P = "P", R = "R" }
    YesNo { N = "N", S = "S" }
    Channel { Kat = "KAT", Kfa = "KFA", Kfc = "KFC", Khc = "KHC", Khe = "KHE", Khk = "KHK", Khm = "KHM", Khn = "KHN", Khq = "KHQ", Red = "RED" }
    Province { Alicante = "ALICANTE", Asturias = "ASTURIAS", Barcelona = "BARCELONA", Cadiz = "CADIZ", CorunaA = "CORUÑA, A", Madrid = "MADRID", Malaga = "MALAGA", Murcia = "MURCIA", Sevilla = "SEVILLA", Valencia = "VALENCIA", Valladolid = "VALLADOLID", Zaragoza = "ZARAGOZA" }
    Segment { Top = "01 - TOP", Particulares = "02 - PARTICULARES", Universitario = "03 - UNIVERSITARIO" }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    ind_empleado: EmployeeIndex,
    pais_residencia: Country,
    sexo: Sex,
    age: u16,
    ind_nuevo: u16,
    antiguedad: u16,
    indrel: u16,
    indrel_1mes: u16,
    tiprel_1mes: CustomerRelation,
    indresi: YesNo,
    indext: YesNo,
    conyuemp: YesNo,
    canal_entrada: Channel,
    indfall: YesNo,
    tipodom: u16,
    cod_prov: u16,
    nomprov: Province,
    ind_actividad_cliente: u16,
    renta: Option<f64>,
    segmento: Segment,

    // Accepted, not used by the model.
    #[serde(rename = "fecha_dato")]
    _fecha_dato: Option<String>,
    #[serde(rename = "ncodpers")]
    _ncodpers: Option<i64>,
    #[serde(rename = "fecha_alta")]
    _fecha_alta: Option<String>,
    #[serde(rename = "ult_fec_cli_1t")]
    _ult_fec_cli_1t: Option<String>,
}

impl Customer {
    /// What is out of range, if anything.
    pub fn problem(&self) -> Option<String> {
        let ranges = [
            ("age", self.age, 0..=130),
            ("ind_nuevo", self.ind_nuevo, 0..=1),
            ("antiguedad", self.antiguedad, 0..=1200),
            ("indrel", self.indrel, 1..=99),
            ("indrel_1mes", self.indrel_1mes, 1..=4),
            ("tipodom", self.tipodom, 1..=1),
            ("cod_prov", self.cod_prov, 1..=52),
            ("ind_actividad_cliente", self.ind_actividad_cliente, 0..=1),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                return Some(format!("{name}: {value} is not in {range:?}"));
            }
        }
        let negative = self.renta.is_some_and(|renta| renta < 0.0);
        negative.then(|| "renta: must not be negative".to_owned())
    }

    /// The model's columns; a missing number is NaN.
    pub fn to_row(&self) -> [f32; 20] {
        [
            self.ind_empleado as u8 as f32,
            self.pais_residencia as u8 as f32,
            self.sexo as u8 as f32,
            f32::from(self.age),
            f32::from(self.ind_nuevo),
            f32::from(self.antiguedad),
            f32::from(self.indrel),
            f32::from(self.indrel_1mes),
            self.tiprel_1mes as u8 as f32,
            self.indresi as u8 as f32,
            self.indext as u8 as f32,
            self.conyuemp as u8 as f32,
            self.canal_entrada as u8 as f32,
            self.indfall as u8 as f32,
            f32::from(self.tipodom),
            f32::from(self.cod_prov),
            self.nomprov as u8 as f32,
            f32::from(self.ind_actividad_cliente),
            self.renta.map_or(f32::NAN, |renta| renta as f32),
            self.segmento as u8 as f32,
        ]
    }
}
