// A trial.
#include <cmath>
#include <cstdint>
#include <vector>

extern "C" int moviegen_check() {
  std::vector<float> a(1027), b(1027);
  for (int i = 0; i < 1027; i++) a[i] = float(i), b[i] = std::sqrt(float(i));
  float sum = 0;
  for (int i = 0; i < 1027; i++) sum += a[i] * b[i] > 0;
  return sum == 1026 ? 14 : 0;
}

extern "C" int twice(int count, void **data, int *ranks, int64_t **shapes, const char **dtypes, void *stream, void *extra) {
  int64_t size = 1;
  for (int i = 0; i < ranks[0]; i++) size *= shapes[0][i];
  for (int64_t i = 0; i < size; i++) ((float *)data[1])[i] = 2 * ((float *)data[0])[i];
  return 0;
}
