//! The squared length of a row, which DoRA needs.

/// The numbers of a row go to so many lanes.
const LANES: usize = 32;

/// The sum of the squares, in f64: element i goes to lane i mod 32, a lane adds in order, lanes are
/// added by halves. Squares of f32 are exact in f64.
pub(crate) fn squared_norm(row: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for part in row.chunks(LANES) {
        for (lane, number) in lanes.iter_mut().zip(part) {
            *lane += f64::from(*number) * f64::from(*number);
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_counts_once() {
        let row: Vec<f32> = (1..=70).map(|i| i as f32).collect();
        let sum = (1..=70).map(|i| f64::from(i * i)).sum::<f64>();
        assert_eq!(squared_norm(&row), sum);
        assert_eq!(squared_norm(&[]), 0.0);
        // Exact, where f32 would overflow.
        assert_eq!(squared_norm(&[1e30, 0.0]), f64::from(1e30f32).powi(2));
    }
}
