using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>Named tensors on disk: one safetensors file (<see cref="SafetensorsFile"/>) or several with an index (<see cref="ShardedSafetensors"/>).
/// Opening one costs its headers, and each tensor its own bytes. Safe for several threads.</summary>
public abstract class TensorSource : IDisposable
{
    /// <summary>The names that files downloaded from the Hub have.</summary>
    public const string SingleName = "model.safetensors", IndexName = "model.safetensors.index.json";

    private const long PieceSize = 16 << 20;

    /// <summary>The file that was opened: for several, their index.</summary>
    public abstract string Path { get; }

    /// <summary>The names of all tensors, in the order of their data.</summary>
    public abstract IReadOnlyList<string> Names { get; }

    /// <summary>What the writer noted; empty when nothing.</summary>
    public abstract IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>Opens a safetensors file, an index (a name that ends in .json), or a folder with either under the names of the Hub: the single file where both are there.</summary>
    /// <exception cref="FileNotFoundException">There is no such file, or no weights in the folder.</exception>
    /// <exception cref="InvalidDataException">The file is not a safetensors file or index, or damaged; the message names the file, the tensor and the reason.</exception>
    public static TensorSource Open(string path)
    {
        if (Directory.Exists(path))
        {
            string single = System.IO.Path.Combine(path, SingleName), index = System.IO.Path.Combine(path, IndexName);
            path = File.Exists(single) ? single : File.Exists(index) ? index
                : throw new FileNotFoundException($"{path}: neither {SingleName} nor {IndexName} is there; choose a folder with weights in safetensors.", single);
        }
        return path.EndsWith(".json", StringComparison.OrdinalIgnoreCase) ? ShardedSafetensors.Open(path) : SafetensorsFile.Open(path);
    }

    /// <summary>True where there is a tensor of this name.</summary>
    public bool Contains(string name) => Find(name) is not null;

    /// <exception cref="InvalidDataException">There is no such tensor.</exception>
    public SafetensorsEntry Info(string name) => Find(name) ?? throw new InvalidDataException($"{Path} has no tensor {name}.");

    /// <summary>A new tensor on the CPU with a copy of the data.</summary>
    /// <exception cref="InvalidDataException">There is no such tensor, or its data is damaged.</exception>
    public Tensor Load(string name)
    {
        SafetensorsEntry entry = Info(name);
        TorchRuntime.Load();
        Tensor tensor = empty([.. entry.Shape], entry.Type, CPU);
        try
        {
            Read(name, entry, Dispatcher.DataPointer(tensor));
            return tensor;
        }
        catch
        {
            tensor.Dispose();
            throw;
        }
    }

    /// <summary>Copies the data into a tensor of the same shape; type and device are converted, in pieces of a few megabytes.</summary>
    /// <exception cref="InvalidDataException">There is no such tensor, or it has another shape, or its type cannot be converted, or its data is damaged.</exception>
    public void CopyInto(string name, Tensor destination)
    {
        SafetensorsEntry entry = Info(name);
        if (!destination.shape.SequenceEqual(entry.Shape))
            throw new InvalidDataException($"{Path}: tensor {name} has the shape [{string.Join(", ", entry.Shape)}], [{string.Join(", ", destination.shape)}] is needed.");
        CheckConversion(name, entry, destination.dtype);
        using IDisposable quiet = no_grad();
        if (!destination.is_contiguous())
        {
            using Tensor loaded = Load(name);
            destination.copy_(loaded);
        }
        else if (destination.dtype == entry.Type && destination.device.type == DeviceType.CPU)
        {
            Read(name, entry, Dispatcher.DataPointer(destination));
            GC.KeepAlive(destination);
        }
        else if (entry.Length > 0) CopyPieces(name, entry, destination);
    }

    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>The tensor of a name, or null.</summary>
    protected internal abstract SafetensorsEntry? Find(string name);

    /// <summary>Writes all bytes of a tensor, or of a piece of it, to an address with room for them.</summary>
    /// <param name="entry">The tensor's, or the same with the offset and length of a piece.</param>
    protected internal abstract void Read(string name, SafetensorsEntry entry, nint destination);

    protected abstract void Dispose(bool disposing);

    private void CopyPieces(string name, SafetensorsEntry entry, Tensor destination)
    {
        using Tensor flat = destination.detach().view(-1);
        long size = entry.Length / flat.numel(), most = Math.Min(PieceSize / size, flat.numel());
        using Tensor piece = empty([most], entry.Type, CPU);
        for (long done = 0; done < flat.numel(); done += most)
        {
            long count = Math.Min(most, flat.numel() - done);
            Read(name, entry with { Offset = entry.Offset + done * size, Length = count * size }, Dispatcher.DataPointer(piece));
            using Tensor source = piece.narrow(0, 0, count), target = flat.narrow(0, done, count);
            target.copy_(source);
        }
    }

    // libtorch would only warn that it drops the imaginary parts, and has no conversion of pairs.
    private void CheckConversion(string name, SafetensorsEntry entry, ScalarType wanted)
    {
        if (wanted == entry.Type) return;
        string to = SafetensorsTypes.NameOf(wanted);
        if (entry.Type == ScalarType.ComplexFloat32 && wanted is not (ScalarType.ComplexFloat32 or ScalarType.ComplexFloat64))
            throw new InvalidDataException($"{Path}: tensor {name} is {entry.Dtype} and would lose its imaginary parts as {to}; load it as it is and choose a part.");
        if (entry.Type == SafetensorsTypes.Float4Pair || wanted == SafetensorsTypes.Float4Pair)
            throw new InvalidDataException($"{Path}: tensor {name} is {entry.Dtype} and libtorch has no conversion of it to {to}; load it as it is, or save the model in F32, F16 or BF16.");
    }
}
