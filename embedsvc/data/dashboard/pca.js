// Principal components: the two directions in which vectors differ most.

const ROUNDS = 300;

// { points: [[x, y]], shares: [of variance] } of vectors, one or more.
export function project(vectors) {
  const centered = center(vectors), size = vectors.length;
  // Of the products of texts, not of dimensions: there are fewer texts.
  const products = centered.map((a) => centered.map((b) => dot(a, b)));
  const total = products.reduce((sum, row, i) => sum + row[i], 0) || 1;
  const columns = [], shares = [];
  for (let which = 0; which < 2; which++) {
    const { vector, value } = strongest(products);
    const length = Math.sqrt(Math.max(value, 0));
    columns.push(vector.map((each) => each * length));
    shares.push(Math.max(value, 0) / total);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) products[i][j] -= value * vector[i] * vector[j];
    }
  }
  return { points: vectors.map((_, i) => columns.map((column) => column[i])), shares };
}

function center(vectors) {
  const mean = new Float64Array(vectors[0].length);
  for (const vector of vectors) vector.forEach((value, i) => { mean[i] += value; });
  return vectors.map((vector) => Float64Array.from(vector, (value, i) =>
    value - mean[i] / vectors.length));
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// The eigenvector of a symmetric matrix with the greatest eigenvalue, by multiplying again and
// again; its largest part is positive, so that the same texts give the same picture.
function strongest(matrix) {
  let vector = normalized(matrix.map((_, i) => Math.sin(i + 1)));
  for (let round = 0; round < ROUNDS; round++) {
    const next = normalized(matrix.map((row) => dot(row, vector)));
    const moved = Math.max(...next.map((value, i) => Math.abs(value - vector[i])));
    vector = next;
    if (moved < 1e-10) break;
  }
  const value = dot(vector, matrix.map((row) => dot(row, vector)));
  const largest = vector.reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a);
  return { vector: largest < 0 ? vector.map((each) => -each) : vector, value };
}

function normalized(vector) {
  const length = Math.sqrt(dot(vector, vector));
  return length < 1e-12 ? vector.map(() => 0) : vector.map((each) => each / length);
}
