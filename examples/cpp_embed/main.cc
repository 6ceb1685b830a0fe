// Embeds PPM images (P6, 8 bits) with btnet from C++: cpp_embed BUNDLE IMAGE.ppm...
//
// Prints a line for each image: its file, the resolution of the branch that it went through, its embedding.

#include <btnet/engine.h>
#include <btnet/error.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Image {
  int width = 0, height = 0;
  std::vector<std::uint8_t> pixels;  // height x width x 3, RGB
};

// A number of the header; comments run from # to the end of the line.
int read_number(std::istream& file) {
  while (file >> std::ws && file.peek() == '#') file.ignore(1 << 20, '\n');
  int number = 0;
  file >> number;
  return number;
}

Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  std::string magic;
  file >> magic;
  Image image;
  image.width = read_number(file);
  image.height = read_number(file);
  const int largest = read_number(file);
  file.get();  // the one white space after the header
  if (!file || magic != "P6" || largest != 255 || image.width < 1 || image.height < 1 || image.width > 1 << 15 ||
      image.height > 1 << 15) {
    throw std::runtime_error(path + " is no PPM image (P6) with 8 bits a channel");
  }
  image.pixels.resize(std::size_t(3) * image.width * image.height);
  file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size()));
  if (!file) throw std::runtime_error(path + " is cut short");
  return image;
}

void embed_files(const std::string& bundle, const std::vector<std::string>& files) {
  std::vector<Image> images;
  for (const std::string& file : files) images.push_back(read_ppm(file));
  std::vector<btnet::ImageView> views;
  for (const Image& image : images) {
    views.push_back({image.pixels.data(), image.height, image.width, 3, 3 * image.width, 3, 1});
  }

  const btnet::Engine engine(bundle);
  std::vector<int> resolutions(views.size());
  std::vector<float> embeddings(views.size() * engine.dim());
  engine.select(views.data(), views.size(), resolutions.data());
  engine.embed(views.data(), views.size(), embeddings.data());

  const float* value = embeddings.data();
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::printf("%s %d", files[i].c_str(), resolutions[i]);
    for (int k = 0; k < engine.dim(); ++k) std::printf(" %.9g", *value++);
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: cpp_embed BUNDLE IMAGE.ppm...\n");
    return 2;
  }
  try {
    embed_files(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {  // btnet's own errors, and those of reading files
    std::fprintf(stderr, "cpp_embed: %s\n", error.what());
    return 1;
  }
  return 0;
}
