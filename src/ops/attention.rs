//! Scaled dot-product attention: `kernels/attention.cu`.

use std::sync::Arc;

use crate::device::{
    ATTENTION_BF16_32, ATTENTION_BF16_64, ATTENTION_BF16_128, ATTENTION_F32_64, ATTENTION_F32_128,
    ATTENTION_KEY_GRAD_BF16_64, ATTENTION_KEY_GRAD_BF16_128, ATTENTION_KEY_GRAD_F32_64, ATTENTION_KEY_GRAD_F32_128,
    ATTENTION_QUERY_GRAD_BF16_64, ATTENTION_QUERY_GRAD_BF16_128, ATTENTION_QUERY_GRAD_F32_64,
    ATTENTION_QUERY_GRAD_F32_128, AttentionArgs, AttentionGradArgs, DType, Device, Divisor, Kernel, TokensView,
};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The largest head.
const MAX_HEAD: usize = 128;

/// Sizes of one attention: queries `(batch, heads, n, d)`, keys and values `(batch, heads, m, d)`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub batch: usize,
    pub heads: usize,
    pub n: usize,
    pub m: usize,
    pub d: usize,
    /// Of the products of queries and keys.
    pub scale: f32,
}

/// Where the tokens of all heads lie in a tensor, in values; the values of one token are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub first: usize,
    /// From one image, head or token to the next.
    pub batch: usize,
    pub head: usize,
    pub token: usize,
}

/// Where q, k, v (or their gradients) lie.
#[derive(Clone, Copy)]
struct Views {
    q: TokensView,
    k: TokensView,
    v: TokensView,
}

/// What is added to a score for the places of its two tokens on a map: a table of their differences, small enough to be read where
/// the score is made.
pub struct Positions {
    /// `(heads, 2 H - 1, 2 W - 1)` float32: row and column of the key less those of the query, from `1 - H` and `1 - W` on
    table: Tensor,
    /// the query less the key
    turned: Tensor,
    map: [usize; 2],
}

impl Positions {
    /// A table `(heads, 2 H - 1, 2 W - 1)` for a map of H x W tokens.
    ///
    /// # Errors
    /// [`Error::Shape`] for a table of another size.
    pub fn new(device: &Device, heads: usize, map @ [h, w]: [usize; 2], table: &[f32]) -> Result<Self> {
        let side = |n: usize| n.checked_mul(2)?.checked_sub(1);
        let size = side(h).zip(side(w)).and_then(|(h, w)| h.checked_mul(w)?.checked_mul(heads));
        if heads == 0 || size != Some(table.len()) {
            let want = format!("({heads}, 2 x {h} - 1, 2 x {w} - 1)");
            return Err(Error::shape("attention", "table of positions", want, table.len()));
        }
        let shape = [heads, 2 * h - 1, 2 * w - 1];
        let turned: Vec<f32> = table.chunks_exact(shape[1] * shape[2]).flat_map(|t| t.iter().rev()).copied().collect();
        let upload = |values: &[f32]| Tensor::from_f32(device, &shape, DType::F32, values);
        Ok(Positions { table: upload(table)?, turned: upload(&turned)?, map })
    }

    pub fn heads(&self) -> usize {
        self.table.shape()[0]
    }

    /// H and W.
    pub fn map(&self) -> [usize; 2] {
        self.map
    }

    /// The bias of every pair, `(heads, H * W, H * W)`: query, key. For whoever wants to look.
    ///
    /// # Errors
    /// What the device reports.
    pub fn expanded(&self, device: &Device) -> Result<Vec<f32>> {
        let ([h, w], tokens, table) = (self.map, self.map[0] * self.map[1], self.table.to_f32(device)?);
        let at = |i: usize| {
            let (key, query, head) = (i % tokens, i / tokens % tokens, i / tokens / tokens);
            let (down, across) = (key / w + h - 1 - query / w, key % w + w - 1 - query % w);
            table[(head * (2 * h - 1) + down) * (2 * w - 1) + across]
        };
        Ok((0..self.heads() * tokens * tokens).map(at).collect())
    }
}

/// What is added to the scores.
#[derive(Clone)]
pub enum Added {
    Nothing,
    /// `(1 or batch, heads, n, m)` float32
    Bias(Tensor),
    Places(Arc<Positions>),
}

impl Added {
    fn bias(&self) -> u64 {
        if let Added::Bias(bias) = self { bias.address() } else { 0 }
    }

    /// Addresses of both tables and the map.
    fn places(&self) -> ([u64; 2], Divisor, i32) {
        match self {
            Added::Places(p) => ([p.table.address(), p.turned.address()], Divisor::new(p.map[1]), p.map[0] as i32),
            _ => ([0; 2], Divisor::new(1), 0),
        }
    }

    fn check(&self, s: &Sizes) -> Result<()> {
        match self {
            Added::Nothing => Ok(()),
            Added::Bias(b) => {
                let want = [b.shape().first().copied().filter(|&n| n == 1).unwrap_or(s.batch), s.heads, s.n, s.m];
                if b.shape() == want && b.dtype() == DType::F32 {
                    return Ok(());
                }
                Err(Error::shape("attention", "bias", format!("F32{want:?}"), format!("{b:?}")))
            }
            Added::Places(p) => {
                let [h, w] = p.map;
                if p.heads() == s.heads && h * w == s.n && s.n == s.m {
                    return Ok(());
                }
                let found = format!("{} heads on {h}x{w}", p.heads());
                let want = format!("{} heads on {} queries and {} keys", s.heads, s.n, s.m);
                Err(Error::shape("attention", "positions", want, found))
            }
        }
    }
}

/// Every kernel of the gradient exists for heads up to 64 and up to 128.
fn choose<A>(g: &Graph, d: usize, [f32_64, f32_128, bf16_64, bf16_128]: [&'static Kernel<A>; 4]) -> &'static Kernel<A> {
    match (g.dtype() == DType::BF16, d <= 64) {
        (false, true) => f32_64,
        (false, false) => f32_128,
        (true, true) => bf16_64,
        (true, false) => bf16_128,
    }
}

impl Heads {
    /// Of `(batch, heads, tokens, d)`.
    pub fn contiguous(heads: usize, tokens: usize, d: usize) -> Self {
        Heads { first: 0, batch: heads * tokens * d, head: tokens * d, token: d }
    }

    /// Of `(batch, tokens, heads, d)`.
    fn joined(heads: usize, tokens: usize, d: usize) -> Self {
        Heads { first: 0, batch: heads * tokens * d, head: d, token: heads * d }
    }

    fn of(&self, t: &Tensor) -> TokensView {
        TokensView {
            at: t.address() + (self.first * t.dtype().size()) as u64,
            batch: self.batch as i64,
            head: self.head as i64,
            token: self.token as i64,
        }
    }

    /// The largest index that is read, `None` where there is none.
    fn last(&self, [batch, heads, tokens, d]: [usize; 4]) -> Option<usize> {
        let reach = |n: usize, step: usize| Some(n.checked_sub(1)? * step);
        Some(self.first + reach(batch, self.batch)? + reach(heads, self.head)? + reach(tokens, self.token)? + d - 1)
    }
}

impl Sizes {
    /// Lengths of `q`, or of `k` and `v`.
    fn of(&self, operand: usize) -> [usize; 4] {
        [self.batch, self.heads, if operand == 0 { self.n } else { self.m }, self.d]
    }

    fn check(&self) -> Result<()> {
        if self.d == 0 || self.d > MAX_HEAD {
            return Err(Error::Limit {
                kernel: "attention".into(),
                what: "values per head",
                requested: self.d as u64,
                max: MAX_HEAD as u64,
            });
        }
        if self.m == 0 {
            return Err(Error::shape("attention", "keys", "at least one", 0));
        }
        Ok(())
    }

    fn flops(&self, g: &Graph, products: usize) {
        g.device().count_product(self.batch * self.heads * self.n, products * self.m, self.d);
    }

    /// Writes y and returns the largest score m and 1/l of each row, `(batch, heads, n, 2)`: log sum exp = m + log l.
    fn forward(&self, g: &Graph, x: &Views, y: TokensView, added: &Added) -> Result<Tensor> {
        let ([table, _], map_w, map_h) = added.places();
        let lse = Tensor::uninit(g.device(), &[self.batch, self.heads, self.n, 2], DType::F32)?;
        let args = AttentionArgs {
            q: x.q,
            k: x.k,
            v: x.v,
            y,
            bias: added.bias(),
            table,
            lse: lse.address(),
            bias_batch: self.bias_batch(added),
            map_w,
            map_h,
            heads: self.heads as i32,
            queries: self.n as i32,
            keys: self.m as i32,
            d: self.d as i32,
            scale: self.scale,
            reserved: 0,
        };
        let (kernel, queries) = match (g.dtype() == DType::BF16, self.d) {
            (true, ..=32) => (&ATTENTION_BF16_32, 128),
            (true, ..=64) => (&ATTENTION_BF16_64, 128),
            (true, _) => (&ATTENTION_BF16_128, 64),
            (false, ..=64) => (&ATTENTION_F32_64, 64),
            (false, _) => (&ATTENTION_F32_128, 64),
        };
        self.flops(g, 2);
        g.launch(kernel, [self.n.div_ceil(queries), self.heads, self.batch], &args)?;
        Ok(lse)
    }

    fn bias_batch(&self, added: &Added) -> i64 {
        match added {
            Added::Bias(b) if b.shape()[0] != 1 => (self.heads * self.n * self.m) as i64,
            _ => 0,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one per operand of the formula")]
    fn gradient(
        &self,
        g: &Graph,
        x: &Views,
        y: TokensView,
        dy: TokensView,
        dx: &Views,
        added: &Added,
        lse: &Tensor,
    ) -> Result<()> {
        // Over a single key the softmax is 1 whatever the scores are, so that neither q nor k has a gradient: scores of 0, none of
        // which goes back, instead of differences of equal sums that rounding leaves. A bias may hide the key, and then it is not 1.
        let is_alone = self.m == 1 && !matches!(added, Added::Bias(_));
        let (added, scale, alone) = match is_alone {
            true => {
                let rows: Vec<f32> = [0.0, 1.0].repeat(self.batch * self.heads * self.n);
                let shape = [self.batch, self.heads, self.n, 2];
                (
                    &Added::Nothing,
                    0.0,
                    Some(Tensor::constant(g.device(), &shape, DType::F32, bytemuck::cast_slice(&rows))?),
                )
            }
            false => (added, self.scale, None),
        };
        let lse = alone.as_ref().unwrap_or(lse);
        let ([table, turned], map_w, map_h) = added.places();
        let delta = Tensor::uninit(g.device(), &[self.batch, self.heads, self.n], DType::F32)?;
        let args = AttentionGradArgs {
            q: x.q,
            k: x.k,
            v: x.v,
            y,
            dy,
            dq: dx.q,
            dk: dx.k,
            dv: dx.v,
            bias: added.bias(),
            table,
            turned,
            lse: lse.address(),
            delta: delta.address(),
            bias_batch: self.bias_batch(added),
            map_w,
            map_h,
            heads: self.heads as i32,
            queries: self.n as i32,
            keys: self.m as i32,
            d: self.d as i32,
            scale,
            reserved: 0,
        };
        let side = if g.dtype() == DType::BF16 && self.d <= 64 { 64 } else { 32 };
        let queries = [
            &ATTENTION_QUERY_GRAD_F32_64,
            &ATTENTION_QUERY_GRAD_F32_128,
            &ATTENTION_QUERY_GRAD_BF16_64,
            &ATTENTION_QUERY_GRAD_BF16_128,
        ];
        let keys = [
            &ATTENTION_KEY_GRAD_F32_64,
            &ATTENTION_KEY_GRAD_F32_128,
            &ATTENTION_KEY_GRAD_BF16_64,
            &ATTENTION_KEY_GRAD_BF16_128,
        ];
        self.flops(g, 7);
        g.launch(choose(g, self.d, queries), [self.n.div_ceil(side), self.heads, self.batch], &args)?;
        g.launch(choose(g, self.d, keys), [self.m.div_ceil(side), self.heads, self.batch], &args)
    }
}

/// `softmax(scale * q k^T + bias) v`.
///
/// | arg | shape | |
/// |---|---|---|
/// | `q` | `(B, H, N, D)` | D at most 128 |
/// | `k`, `v` | `(B, H, M, D)` | |
/// | `bias` | `(1 or B, H, N, M)` | float32, optional; has no gradient |
/// | ret | `(B, H, N, D)` | |
///
/// With gradients on, keeps its operands and the result by reference and two numbers per query.
///
/// # Errors
/// [`Error::Shape`] when shapes disagree, [`Error::Limit`] for larger heads.
pub fn attention(g: &Graph, [q, k, v]: [&Tensor; 3], bias: Option<&Tensor>, scale: Option<f32>) -> Result<Tensor> {
    let [batch, heads, n, d] = g.dims4("attention", q)?;
    let m = k.dims4("attention")?[2];
    for (what, t) in [("k", k), ("v", v)] {
        let want = [batch, heads, m, d];
        if t.shape() != want {
            return Err(Error::shape("attention", what, format!("{want:?}"), format!("{:?}", t.shape())));
        }
    }
    let s = Sizes { batch, heads, n, m, d, scale: scale.unwrap_or(1.0 / (d as f32).sqrt()) };
    let at = [n, m, m].map(|tokens| Heads::contiguous(heads, tokens, d));
    let added = bias.map_or(Added::Nothing, |b| Added::Bias(b.clone()));
    attend(g, [q, k, v], at, &s, &added, (q.shape(), at[0]))
}

/// Self-attention over the pixels of an image, from one fused projection.
///
/// | arg | shape | |
/// |---|---|---|
/// | `qkv` | `(N, H, W, 3 * heads * D)` | head by head, each head's q, k and v side by side |
/// | `positions` | of a map H x W | optional, added to the logits; has no gradient |
/// | ret | `(N, H, W, heads * D)` | head by head |
///
/// With gradients on, keeps `qkv` and the result by reference and two numbers per query.
///
/// # Errors
/// As [`attention`].
pub fn self_attention(g: &Graph, qkv: &Tensor, heads: usize, positions: Option<&Arc<Positions>>) -> Result<Tensor> {
    let [batch, h, w, c] = g.dims4("self_attention", qkv)?;
    if heads == 0 || heads > c || !c.is_multiple_of(3 * heads) {
        return Err(Error::shape("self_attention", "channels", format!("a multiple of 3 x {heads} heads"), c));
    }
    let d = c / (3 * heads);
    let s = Sizes { batch, heads, n: h * w, m: h * w, d, scale: 1.0 / (d as f32).sqrt() };
    if let Some(p) = positions.filter(|p| p.heads() != heads || p.map != [h, w]) {
        let found = format!("{} heads on {}x{}", p.heads(), p.map[0], p.map[1]);
        return Err(Error::shape("self_attention", "positions", format!("{heads} heads on {h}x{w}"), found));
    }
    let added = positions.map_or(Added::Nothing, |p| Added::Places(p.clone()));
    let at = [0, 1, 2].map(|i| Heads { first: i * d, batch: s.n * c, head: 3 * d, token: c });
    attend(g, [qkv; 3], at, &s, &added, (&[batch, h, w, heads * d], Heads::joined(heads, s.n, d)))
}

/// [`attention`] of operands that lie anywhere in tensors, each the whole of one, or apart from each other and together the whole of
/// one: heads next to each other in one projection, say.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | any | what `q`, `k` and `v` lie in |
/// | `at` | | where |
/// | ret | `(batch, n, heads, d)` | |
///
/// # Errors
/// As [`attention`]; [`Error::Shape`] for operands that lie beyond their tensor or leave some of it out.
pub fn attention_of(g: &Graph, x: [&Tensor; 3], at: [Heads; 3], s: &Sizes, added: &Added) -> Result<Tensor> {
    let shape = [s.batch, s.n, s.heads, s.d];
    attend(g, x, at, s, added, (&shape, Heads::joined(s.heads, s.n, s.d)))
}

/// The result has a shape, in which its tokens lie somewhere too.
fn attend(
    g: &Graph,
    x: [&Tensor; 3],
    at: [Heads; 3],
    s: &Sizes,
    added: &Added,
    (shape, joined): (&[usize], Heads),
) -> Result<Tensor> {
    let s = *s;
    s.check()?;
    added.check(&s)?;
    let count = |i: usize| s.of(i).iter().product::<usize>();
    // Which gradient each operand's is a part of.
    let mut parts = [0, 1, 2];
    for (i, what) in ["q", "k", "v"].into_iter().enumerate() {
        g.takes("attention", what, x[i])?;
        if at[i].last(s.of(i)).is_some_and(|last| last >= x[i].len()) {
            return Err(Error::shape(
                "attention",
                what,
                format!("{:?} at {:?}", s.of(i), at[i]),
                format!("{:?}", x[i].shape()),
            ));
        }
        let same = |j: &usize| x[*j].id() == x[i].id();
        let together: usize = (0..3).filter(same).map(count).sum();
        if together == x[i].len() {
            parts[i] = (0..3).find(same).unwrap_or(i);
        } else if count(i) != x[i].len() {
            let want = format!("{together} values, as many as are read");
            return Err(Error::shape("attention", what, want, format!("{:?}", x[i].shape())));
        }
    }
    let views = move |x: [&Tensor; 3]| Views { q: at[0].of(x[0]), k: at[1].of(x[1]), v: at[2].of(x[2]) };
    let y = g.uninit(shape)?;
    let lse = s.forward(g, &views(x), joined.of(&y), added)?;

    let (x_in, y_out, added) = (x.map(Tensor::clone), y.clone(), added.clone());
    let inputs: Vec<&Tensor> = (0..3).filter(|&i| parts[i] == i).map(|i| x[i]).collect();
    g.record("attention gradient", &inputs, &y, move |g, dy, grads| {
        let mut dx: [Option<Tensor>; 3] = [None, None, None];
        for i in 0..3 {
            dx[i] = Some(match (parts[i] == i, &dx[parts[i]]) {
                (false, Some(whole)) => whole.clone(),
                _ => g.uninit(x_in[i].shape())?,
            });
        }
        let [Some(dq), Some(dk), Some(dv)] = dx else { return Ok(()) };
        let dx = [&dq, &dk, &dv];
        s.gradient(g, &views(x_in.each_ref()), joined.of(&y_out), joined.of(dy), &views(dx), &added, &lse)?;
        for i in (0..3).filter(|&i| parts[i] == i) {
            grads.add(g, &x_in[i], dx[i].clone())?;
        }
        Ok(())
    });
    Ok(y)
}
