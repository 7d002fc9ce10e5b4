/* Score FITS cutouts with a raw model: ./score realbogus.onnx cutout.fits...
 *
 * Standard C11 and onnxruntime's C interface, nothing else. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

enum { BLOCK = 2880, CARD = 80, CHANNELS = 3, MAX_SIDE = 4096 };
static const char *const NAMES[CHANNELS] = {"SCIENCE", "REFERENCE", "DIFFERENCE"};

static const OrtApi *ort;

static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "onnxruntime: %s\n", ort->GetErrorMessage(status));
  exit(1);
}

static void fail(const char *file, const char *reason) {
  fprintf(stderr, "%s: %s\n", file, reason);
  exit(1);
}

typedef struct {
  char name[CARD + 1];
  long bitpix, axes, width, height;
  double fwhm;
} Header;

/* One header, block by block; 0 at the end of the file. */
static int read_header(FILE *stream, const char *file, Header *header) {
  char block[BLOCK];
  memset(header, 0, sizeof *header);
  for (int first = 1;; first = 0) {
    if (fread(block, 1, BLOCK, stream) != BLOCK) {
      if (first) return 0;
      fail(file, "no end of a FITS header");
    }
    for (int at = 0; at < BLOCK; at += CARD) {
      char card[CARD + 1];
      memcpy(card, block + at, CARD);
      card[CARD] = '\0';
      const char *value = card + 10;
      if (!strncmp(card, "BITPIX  =", 9)) header->bitpix = atol(value);
      if (!strncmp(card, "NAXIS   =", 9)) header->axes = atol(value);
      if (!strncmp(card, "NAXIS1  =", 9)) header->width = atol(value);
      if (!strncmp(card, "NAXIS2  =", 9)) header->height = atol(value);
      if (!strncmp(card, "FWHM    =", 9)) header->fwhm = atof(value);
      if (!strncmp(card, "EXTNAME =", 9)) sscanf(value, " '%79[^' ]", header->name);
      if (!strncmp(card, "END     ", 8)) return 1;
    }
  }
}

static float big_endian(const unsigned char *bytes) {
  uint32_t bits = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The three stamps of a file, (3, height, width), NaN where the file lacks one. */
static float *read_stamps(const char *file, int64_t *height, int64_t *width, float *fwhm) {
  FILE *stream = fopen(file, "rb");
  if (stream == NULL) fail(file, "cannot be opened");
  float *stamps = NULL;
  Header header;
  *height = *width = 0;
  *fwhm = 0; /* unknown */
  while (read_header(stream, file, &header)) {
    int channel = 0;
    while (channel < CHANNELS && strcmp(header.name, NAMES[channel])) channel++;
    size_t pixels = header.axes == 2 ? (size_t)header.width * (size_t)header.height : 0;
    size_t size = (pixels * (size_t)(labs(header.bitpix) / 8) + BLOCK - 1) / BLOCK * BLOCK;
    if (channel == CHANNELS || pixels == 0) {
      fseek(stream, (long)size, SEEK_CUR);
      continue;
    }
    if (header.bitpix != -32 || header.width > MAX_SIDE || header.height > MAX_SIDE)
      fail(file, "not a float32 stamp");
    if (stamps == NULL) {
      *height = header.height;
      *width = header.width;
      stamps = malloc(CHANNELS * pixels * sizeof *stamps);
      if (stamps == NULL) fail(file, "no memory");
      for (size_t i = 0; i < CHANNELS * pixels; i++) stamps[i] = NAN;
    } else if (header.height != *height || header.width != *width) {
      fail(file, "stamps of different sizes");
    }
    if (channel == 0) *fwhm = (float)header.fwhm;
    unsigned char *bytes = malloc(size);
    if (bytes == NULL || fread(bytes, 1, size, stream) != size) fail(file, "cut short");
    for (size_t i = 0; i < pixels; i++) stamps[(size_t)channel * pixels + i] = big_endian(bytes + 4 * i);
    free(bytes);
  }
  fclose(stream);
  if (stamps == NULL) fail(file, "no stamps");
  return stamps;
}

/* The first line of the table: the class names stand in the model's metadata, one a line. */
static void print_header(OrtSession *session, OrtAllocator *allocator) {
  OrtModelMetadata *metadata;
  char *classes;
  check(ort->SessionGetModelMetadata(session, &metadata));
  check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "transientnet_classes", &classes));
  if (classes == NULL) fail("model", "not a raw model of transientnet");
  printf("id");
  for (char *name = strtok(classes, "\n"); name != NULL; name = strtok(NULL, "\n")) printf(",p_%s", name);
  printf(",quality\n");
  allocator->Free(allocator, classes);
  ort->ReleaseModelMetadata(metadata);
}

static void print_row(const char *file, const float *probabilities, size_t classes, int32_t quality) {
  const char *name = strrchr(file, '/');
  name = name == NULL ? file : name + 1;
  const char *ending = strstr(name, ".fits");
  printf("%.*s", ending == NULL ? (int)strlen(name) : (int)(ending - name), name);
  for (size_t k = 0; k < classes; k++) {
    if (isnan(probabilities[k]))
      printf(",nan");
    else
      printf(",%.7f", (double)probabilities[k]);
  }
  printf(",%d\n", (int)quality);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL.onnx CUTOUT.fits...\n", argv[0]);
    return 2;
  }
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (ort == NULL) fail("onnxruntime", "the library is older than the header");
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtAllocator *allocator;
  OrtMemoryInfo *memory;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "transientnet", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(env, argv[1], options, &session));
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  print_header(session, allocator);

  static const char *const inputs[] = {"stamps", "fwhm"};
  static const char *const outputs[] = {"probabilities", "quality"};
  for (int i = 2; i < argc; i++) {
    int64_t height, width;
    float fwhm;
    float *stamps = read_stamps(argv[i], &height, &width, &fwhm);
    const int64_t shape[] = {1, CHANNELS, height, width}, one[] = {1};
    size_t bytes = (size_t)(CHANNELS * height * width) * sizeof *stamps;
    OrtValue *given[2] = {NULL, NULL}, *found[2] = {NULL, NULL};
    check(ort->CreateTensorWithDataAsOrtValue(memory, stamps, bytes, shape, 4,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &given[0]));
    check(ort->CreateTensorWithDataAsOrtValue(memory, &fwhm, sizeof fwhm, one, 1,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &given[1]));
    check(ort->Run(session, NULL, inputs, (const OrtValue *const *)given, 2, outputs, 2, found));
    OrtTensorTypeAndShapeInfo *info;
    size_t classes;
    float *probabilities;
    int32_t *quality;
    check(ort->GetTensorTypeAndShape(found[0], &info));
    check(ort->GetTensorShapeElementCount(info, &classes));
    check(ort->GetTensorMutableData(found[0], (void **)&probabilities));
    check(ort->GetTensorMutableData(found[1], (void **)&quality));
    print_row(argv[i], probabilities, classes, quality[0]);
    ort->ReleaseTensorTypeAndShapeInfo(info);
    for (int k = 0; k < 2; k++) {
      ort->ReleaseValue(given[k]);
      ort->ReleaseValue(found[k]);
    }
    free(stamps);
  }
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(env);
  return 0;
}
