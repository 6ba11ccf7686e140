// Tasks on torch's own threads, for every extension of the package.

#pragma once

#include <atomic>
#include <cstdint>
#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace {

using ParallelFn = void (*)(void (*)(void *), void *, unsigned, unsigned);

ParallelFn find_parallel() {
#ifdef _WIN32
  return nullptr;
#else
  // torch loads its OpenMP runtime into the global scope; sharing it avoids a second pool of spinning threads
  return reinterpret_cast<ParallelFn>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#endif
}

template <class Body>
struct Loop {
  const Body *body;
  int64_t tasks;
  std::atomic<int64_t> next;
};

template <class Body>
void run_tasks(void *raw) {
  auto *loop = static_cast<Loop<Body> *>(raw);
  for (int64_t i; (i = loop->next.fetch_add(1)) < loop->tasks;) (*loop->body)(i);
}

template <class Body>
void parallel(int64_t tasks, int threads, const Body &body) {
  static const ParallelFn start = find_parallel();
  Loop<Body> loop{&body, tasks, {0}};
  if (start && threads > 1 && tasks > 1)
    start(&run_tasks<Body>, &loop, static_cast<unsigned>(threads < tasks ? threads : tasks), 0);
  else
    run_tasks<Body>(&loop);
}

}  // namespace
