// Runs the kernels on buffers of exactly the right size and compares them with plain loops in double. Meant to be built
// with -fsanitize=address,undefined, as tests/kernels/native/test_cpp.py does. On a wrong result it prints a line and exits
// with 1.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <numeric>
#include <vector>

#include "dispatch/dispatch.h"

using namespace clearhead;

namespace {

std::mt19937 generator(0);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator); }

template <class Number>
std::vector<Number> numbers(int64_t n) {
  std::normal_distribution<Number> normal;
  std::vector<Number> x(n);
  for (Number& v : x) v = normal(generator);
  return x;
}

template <class Number>
Tensor dense(std::vector<Number>& data, int64_t heads, int64_t rows, int64_t columns) {
  return {data.data(), heads * rows * columns, rows * columns, columns, 1};
}

template <class Number>
struct Case {
  static constexpr double kClose = sizeof(Number) == 8 ? 1e-12 : 1e-4;
  Attention p = {};
  Gradients g;
  std::vector<Number> query, key, value, out, lse, grad_out, grad_query, grad_key, grad_value, bias, sinks, alibi;
  std::vector<Number> grad_bias, sinks_rows, alibi_rows, head_scale, head_scale_rows;
  std::vector<uint8_t> allow;

  Case() {
    p.batch = between(1, 2);
    p.kv_heads = between(1, 2);
    p.heads = p.kv_heads * between(1, 3);
    p.length = between(0, 3) ? between(0, 150) : between(1, 4);
    p.keys = between(0, 3) ? between(0, 150) : between(1, 1100);
    p.width = between(0, 70);
    p.value_width = between(0, 70);
    p.dtype = sizeof(Number) == 8 ? kFloat64 : kFloat32;
    p.scale = 0.2;
    p.first_query = between(0, 1) * between(-5, 50);
    p.first_key = between(0, 1) * between(-5, 50);
    const int64_t ahead = p.first_query - p.first_key;
    if (between(0, 1)) p.band_low = between(-60, 0) - ahead;
    if (between(0, 1)) p.band_high = between(0, 60) - ahead;
    const int64_t rows = p.batch * p.heads * p.length, columns = p.batch * p.kv_heads * p.keys;
    query = numbers<Number>(rows * p.width);
    key = numbers<Number>(columns * p.width);
    value = numbers<Number>(columns * p.value_width);
    out.resize(rows * p.value_width);
    lse.resize(rows);
    grad_out = numbers<Number>(rows * p.value_width);
    grad_query.resize(query.size());
    grad_key.resize(key.size());
    grad_value.resize(value.size());
    p.query = dense(query, p.heads, p.length, p.width);
    p.key = dense(key, p.kv_heads, p.keys, p.width);
    if (between(0, 3) == 0) p.key.row = 1, p.key.column = p.keys;  // transposed
    p.value = dense(value, p.kv_heads, p.keys, p.value_width);
    p.out = dense(out, p.heads, p.length, p.value_width);
    p.lse = {lse.data(), p.heads * p.length, p.length, 1, 0};
    p.lse_dtype = p.dtype;
    g.grad_out = dense(grad_out, p.heads, p.length, p.value_width);
    g.grad_query = dense(grad_query, p.heads, p.length, p.width);
    g.grad_key = dense(grad_key, p.kv_heads, p.keys, p.width);
    g.grad_value = dense(grad_value, p.kv_heads, p.keys, p.value_width);
    if (between(0, 1)) {
      allow.resize(p.length * p.keys);
      for (uint8_t& byte : allow) byte = between(0, 2) != 0;
      p.allow = {allow.data(), 0, 0, p.keys, 1};
    }
    if (between(0, 1)) {
      bias = numbers<Number>(p.heads * p.length * p.keys);
      p.bias = {bias.data(), 0, p.length * p.keys, p.keys, 1};
      p.bias_dtype = p.dtype;
    }
    if (between(0, 1)) {
      sinks = numbers<Number>(p.heads);
      p.sinks = sinks.data();
    }
    if (between(0, 2) == 0) p.softcap = 2;
    if (between(0, 1)) {
      alibi = numbers<Number>(p.heads);
      for (Number& slope : alibi) slope = std::abs(slope) / 8;
      p.alibi = alibi.data();
    }
    if (between(0, 2) == 0) {
      head_scale = numbers<Number>(p.heads);
      p.head_scale = head_scale.data();
      head_scale_rows.resize(rows);
      g.head_scale_rows = head_scale_rows.data();
    }
    if (!sinks.empty()) sinks_rows.resize(rows), g.sinks_rows = sinks_rows.data();
    if (!alibi.empty()) alibi_rows.resize(rows), g.alibi_rows = alibi_rows.data();
    const Tensor shapes[] = {
        {},
        {nullptr, p.heads * p.length * p.keys, p.length * p.keys, p.keys, 1},
        {nullptr, 0, p.length * p.keys, p.keys, 1},  // shared by batch entries
        {nullptr, 0, 0, p.keys, 1},                  // and by heads
        {nullptr, p.heads * p.keys, p.keys, 0, 1},   // by queries
        {nullptr, 0, p.length, 1, 0},                // by keys and batch entries
    };
    g.grad_bias = shapes[between(0, 5)];
    // If queries share a bias, its gradient has numbers even without any query.
    grad_bias.resize(p.batch * p.heads * std::max<int64_t>(p.length, 1) * std::max<int64_t>(p.keys, 1) + 1);
    if (g.grad_bias.batch + g.grad_bias.head + g.grad_bias.row + g.grad_bias.column) g.grad_bias.data = grad_bias.data();
  }

  double key_at(int64_t head, int64_t j, int64_t c) const { return key[head * p.key.head + j * p.key.row + c * p.key.column]; }

  double logit(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t kv = h / (p.heads / p.kv_heads);
    const int64_t distance = p.first_key + j - p.first_query - i;
    if (distance < p.band_low || distance > p.band_high) return -INFINITY;
    if (!allow.empty() && !allow[i * p.keys + j]) return -INFINITY;
    double x = 0;
    for (int64_t c = 0; c < p.width; c++)
      x += double(query[((b * p.heads + h) * p.length + i) * p.width + c]) *
           key_at(b * p.kv_heads + kv, j, c);
    x *= head_scale.empty() ? p.scale : p.scale * head_scale[h];
    if (p.softcap != 0) x = p.softcap * std::tanh(x / p.softcap);
    if (!alibi.empty()) x -= alibi[h] * double(std::abs(distance));
    return bias.empty() ? x : x + bias[(h * p.length + i) * p.keys + j];
  }

  // The largest error of the output and the lse.
  double error() const {
    double worst = 0;
    for (int64_t b = 0; b < p.batch; b++)
      for (int64_t h = 0; h < p.heads; h++)
        for (int64_t i = 0; i < p.length; i++) {
          const int64_t kv = h / (p.heads / p.kv_heads), row = (b * p.heads + h) * p.length + i;
          double total = sinks.empty() ? 0 : std::exp(double(sinks[h]));
          std::vector<double> sums(p.value_width);
          for (int64_t j = 0; j < p.keys; j++) {
            const double weight = std::exp(logit(b, h, i, j));
            total += weight;
            for (int64_t e = 0; e < p.value_width; e++)
              sums[e] += weight * value[((b * p.kv_heads + kv) * p.keys + j) * p.value_width + e];
          }
          const double lse_here = lse[row];
          if (total == 0 ? lse_here != -INFINITY : !(std::abs(lse_here - std::log(total)) < kClose)) return INFINITY;
          for (int64_t e = 0; e < p.value_width; e++) {
            const double difference = std::abs(out[row * p.value_width + e] - (total == 0 ? 0 : sums[e] / total));
            if (!(difference <= worst)) worst = difference;
          }
        }
    return worst;
  }

  // The largest error of the second pass: column sums, a map, the largest weights, and mass and entropy of each row.
  // To be called after the forward pass, which gives it the lse.
  double statistics_error(const Target& target) {
    const int64_t rows = p.batch * p.heads * p.length, columns = p.batch * p.heads * p.keys;
    const int64_t down = 3, across = 5, top = p.keys < 4 ? p.keys : 4;
    std::vector<float> entropy(rows), mass(rows), spread(rows), best(rows * top), received(columns);
    std::vector<float> map(p.batch * p.heads * down * across);
    std::vector<int64_t> best_keys(rows * top), row_edges, key_edges;
    for (int64_t i = 0; i < down; i++) row_edges.insert(row_edges.end(), {i * p.length / down, (i + 1) * p.length / down});
    for (int64_t i = 0; i < across; i++) key_edges.insert(key_edges.end(), {i * p.keys / across, (i + 1) * p.keys / across});
    Statistics s = {};
    s.last_row = p.length;
    s.last_key = p.keys;
    s.entropy = entropy.data();
    s.mass = mass.data();
    s.spread = spread.data();
    s.received = received.data();
    s.top = top;
    s.top_weights = best.data();
    s.top_keys = best_keys.data();
    s.cells_down = down;
    s.cells_across = across;
    s.row_edges = row_edges.data();
    s.key_edges = key_edges.data();
    s.map = map.data();
    run_statistics(target, p, s, 2);
    double worst = 0;
    const auto compare = [&worst](double ours, double exact) {
      if (!(std::abs(ours - exact) <= worst)) worst = std::abs(ours - exact);
    };
    std::vector<double> total(columns);
    double cells = 0, in_map = 0;
    for (int64_t row = 0; row < rows; row++) {
      const int64_t i = row % p.length, h = row / p.length % p.heads, b = row / p.length / p.heads;
      double sum = 0, surprise = 0;
      std::vector<double> weights(p.keys);
      for (int64_t j = 0; j < p.keys; j++) {
        const double weight = lse[row] == -INFINITY ? 0 : std::exp(logit(b, h, i, j) - lse[row]);
        weights[j] = weight;
        total[(b * p.heads + h) * p.keys + j] += weight;
        sum += weight;
        surprise -= weight == 0 ? 0 : weight * std::log(weight);
      }
      cells += sum;
      compare(mass[row], sum);
      compare(entropy[row], surprise);
      for (int64_t r = 0; r < top; r++) compare(best[row * top + r], weights[best_keys[row * top + r]]);
      std::sort(weights.begin(), weights.end(), std::greater<double>());
      for (int64_t r = 0; r < top; r++) compare(best[row * top + r], weights[r]);
    }
    for (int64_t j = 0; j < columns; j++) compare(received[j], total[j]);
    for (const float cell : map) in_map += cell;
    compare(in_map / (1 + cells), cells / (1 + cells));
    return worst;
  }

  // The largest error of the gradients of bias, sinks and slopes.
  double extras_error() const {
    double worst = 0;
    const auto compare = [&worst](double ours, double exact, double size) {
      if (!(std::abs(ours - exact) / (1 + size) <= worst)) worst = std::abs(ours - exact) / (1 + size);
    };
    const Tensor& t = g.grad_bias;
    std::vector<double> exact(grad_bias.size());
    for (int64_t row = 0; row < p.batch * p.heads * p.length; row++) {
      const int64_t i = row % p.length, h = row / p.length % p.heads, b = row / p.length / p.heads;
      const int64_t kv = h / (p.heads / p.kv_heads);
      std::vector<double> weight(p.keys), slope(p.keys);
      double delta = 0, distance = 0, size = 0;
      for (int64_t j = 0; j < p.keys; j++) {
        weight[j] = lse[row] == -INFINITY ? 0 : std::exp(logit(b, h, i, j) - lse[row]);
        for (int64_t e = 0; e < p.value_width; e++)
          slope[j] += double(grad_out[row * p.value_width + e]) * value[((b * p.kv_heads + kv) * p.keys + j) * p.value_width + e];
        delta += weight[j] * slope[j];
      }
      for (int64_t j = 0; j < p.keys; j++) {
        const double here = weight[j] * (slope[j] - delta);
        distance += here * double(std::abs(p.first_query + i - p.first_key - j));
        // The weights are only as exact as the lse, a float. With one key, for example, dS should be 0 and is not.
        size += weight[j] * (std::abs(slope[j]) + std::abs(delta)) * double(std::abs(p.first_query + i - p.first_key - j));
        exact[b * t.batch + h * t.head + i * t.row + j * t.column] += here;
      }
      if (g.alibi_rows) compare(alibi_rows[row], -distance, size);
      if (g.sinks_rows) compare(sinks_rows[row], -std::exp(sinks[h] - double(lse[row])) * delta, std::abs(delta));
    }
    for (size_t at = 0; t.data && at < exact.size(); at++) compare(grad_bias[at], exact[at], std::abs(exact[at]));
    return worst;
  }

  // sum(grad_query * query) must equal sum(grad_key * key): both are the same sum over dS ∘ S.
  double gradient_error() const {
    double left = 0, right = 0, size = 1;
    for (size_t i = 0; i < query.size(); i++) left += double(grad_query[i]) * query[i], size += std::abs(grad_query[i]);
    for (int64_t i = 0; i < int64_t(key.size()); i++)
      right += double(grad_key[i]) * key_at(i / (p.keys * p.width), i / p.width % p.keys, i % p.width);
    return std::abs(left - right) / size;
  }
};

// The same case in bfloat16: the largest error of the output. The exact answer is that of the rounded numbers.
double bfloat16_error(const Target& target, Case<float> c) {
  const auto rounded = [](std::vector<float>& x) {
    std::vector<uint16_t> halves(x.size());
    for (size_t i = 0; i < x.size(); i++) {
      uint32_t bits;
      std::memcpy(&bits, &x[i], 4);
      halves[i] = uint16_t((bits + 0x8000) >> 16);
      bits = uint32_t(halves[i]) << 16;
      std::memcpy(&x[i], &bits, 4);
    }
    return halves;
  };
  std::vector<uint16_t> query = rounded(c.query), key = rounded(c.key), value = rounded(c.value), out(c.out.size());
  Attention p = c.p;
  p.dtype = kBFloat16;
  p.query.data = query.data();
  p.key.data = key.data();
  p.value.data = value.data();
  p.out.data = out.data();
  p.lse.data = c.lse.data();
  run_forward(target, p, 2);
  for (size_t i = 0; i < out.size(); i++) {
    const uint32_t bits = uint32_t(out[i]) << 16;
    std::memcpy(&c.out[i], &bits, 4);
  }
  return c.error();
}

// The largest error of a linear layer that writes into heads.
double linear_error(const Target& target) {
  Linear p = {};
  const int64_t batch = between(1, 3), heads = between(1, 3);
  p.length = between(1, 120);
  p.rows = batch * p.length;
  p.inputs = between(0, 1) ? between(0, 500) : 16 * between(0, 30);  // few rows are read in place if they are whole vectors
  p.width = between(1, 70);
  p.outputs = heads * p.width;
  auto x = numbers<float>(p.rows * p.inputs), weight = numbers<float>(p.outputs * p.inputs);
  auto bias = numbers<float>(p.outputs);
  std::vector<float> out(p.rows * p.outputs);
  p.x = {x.data(), 0, 0, p.inputs, 1};
  p.weight = {weight.data(), 0, 0, p.inputs, 1};
  p.out = dense(out, heads, p.length, p.width);
  p.bias = bias.data();
  run_linear(target, p, 2);
  double worst = 0;
  for (int64_t r = 0; r < p.rows; r++)
    for (int64_t c = 0; c < p.outputs; c++) {
      double sum = bias[c];
      for (int64_t k = 0; k < p.inputs; k++) sum += double(x[r * p.inputs + k]) * weight[c * p.inputs + k];
      const int64_t at = r / p.length * p.out.batch + c / p.width * p.out.head + r % p.length * p.out.row + c % p.width;
      worst = std::fmax(worst, std::abs(out[at] - sum));
    }
  return worst;
}

// Rows of the weights sum to 1 or 0, with sinks to less than 1; averaged over heads they are the mean; statistics fit them.
double weights_error(const Target& target, const Case<float>& c) {
  if (c.p.keys == 0) return 0;
  const Attention p = c.p;
  const int64_t rows = p.batch * p.heads * p.length;
  std::vector<float> each(rows * p.keys), mean(p.batch * p.length * p.keys), mass(rows), best(rows);
  std::vector<int64_t> keys(rows);
  Statistics s;
  s.mass = mass.data();
  s.top = 1;
  s.top_weights = best.data();
  s.top_keys = keys.data();
  run_weights(target, p, dense(each, p.heads, p.length, p.keys), 2, &s);
  double worst = c.error();
  run_weights(target, p, {mean.data(), p.length * p.keys, 0, p.keys, 1}, 2);
  worst = std::fmax(worst, c.error());
  for (int64_t i = 0; i < p.batch * p.length * p.keys; i++) {
    const int64_t b = i / (p.length * p.keys), rest = i % (p.length * p.keys);
    double sum = 0;
    for (int64_t h = 0; h < p.heads; h++) sum += each[(b * p.heads + h) * p.length * p.keys + rest];
    worst = std::fmax(worst, std::abs(mean[i] - sum / p.heads));
  }
  for (int64_t row = 0; row < rows; row++) {
    const double sum = std::accumulate(&each[row * p.keys], &each[row * p.keys] + p.keys, 0.0);
    const double apart = std::abs(sum - mass[row]) + std::abs(each[row * p.keys + keys[row]] - best[row]);
    if (!(apart <= worst)) worst = apart;
    const double wanted = c.lse[row] == -INFINITY ? 0 : 1;
    worst = std::fmax(worst, c.p.sinks ? sum - wanted : std::abs(sum - wanted));
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
  for (int t = 0; t < target_count(); t++) {
    const Target& target = target_at(t);
    if (!supported(target)) continue;
    for (int n = 0; n < cases; n++) {
      Case<double> wide;
      run_forward(target, wide.p, 2);
      run_backward(target, wide.p, wide.g, 2);
      const double in_doubles = std::fmax(wide.error(), std::fmax(wide.gradient_error(), wide.extras_error()));
      if (!(in_doubles < wide.kClose)) {
        std::printf("target %s, case %d: error of output or gradients in doubles: %g\n", target.row.name, n, in_doubles);
        return 1;
      }
      Case<float> c;
      run_forward(target, c.p, 2);
      const double error = c.error(), statistics_error = c.statistics_error(target);
      std::vector<double> lse(c.lse.size());  // the lse that forward gives to backward
      Attention exact = c.p;
      exact.lse.data = lse.data(), exact.lse_dtype = kFloat64;
      run_forward(target, exact, 2);
      run_backward(target, exact, c.g, 2);
      double gradient_error = std::fmax(c.gradient_error(), c.extras_error());
      for (size_t i = 0; i < lse.size(); i++)
        if (lse[i] != c.lse[i] && !(std::abs(lse[i] - c.lse[i]) < 1e-5 * (1 + std::abs(lse[i])))) gradient_error = INFINITY;
      if (!(error < c.kClose) || !(gradient_error < c.kClose) || !(statistics_error < 1e-3)) {
        std::printf("target %s, case %d: errors: output %g, gradients %g, statistics %g\n", target.row.name, n,
                    error, gradient_error, statistics_error);
        return 1;
      }
      const double bfloat16 = bfloat16_error(target, c);
      if (!(bfloat16 < 0.02)) {
        std::printf("target %s, case %d: error of output in bfloat16: %g\n", target.row.name, n, bfloat16);
        return 1;
      }
      const double linear = linear_error(target), weights = weights_error(target, c);
      if (!(linear < 1e-3) || !(weights < 1e-4)) {
        std::printf("target %s, case %d: errors: linear layer %g, weights %g\n", target.row.name, n, linear, weights);
        return 1;
      }
    }
    std::printf("target %s: %d cases\n", target.row.name, cases);
  }
  return 0;
}
