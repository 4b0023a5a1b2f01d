using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using NopeGpt.Model.Native;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>A .bin file of llama2.c, read through a memory map: seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len),
/// then every weight in float32, each kind for all layers. Two versions have these weights: 0 (the seven numbers alone, the vocabulary negative where
/// the head is a matrix of its own, tables of rotary angles after the weights) and 1 ("ak42", the version, the numbers and a flag in 256 bytes).
/// The format is that of the reader run.c and the writer export.py.</summary>
internal sealed unsafe class Llama2CFile : TensorSource
{
    /// <summary>The reader of the format has it in its code.</summary>
    public const double Epsilon = 1e-5;

    private const uint Magic = 0x616b3432;
    private const int Numbers = 7, LegacyHeader = Numbers * sizeof(int), VersionedHeader = 256;

    private static readonly string[] Fields = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"];

    private static readonly Dictionary<string, string> FieldOf = new()
    {
        ["embedding_dimensions"] = "dim", ["hidden_size"] = "hidden_dim", ["num_decoder_layers"] = "n_layers", ["num_q_heads"] = "n_heads",
        ["num_kv_heads"] = "n_kv_heads", ["vocabulary_size"] = "vocab_size", ["context_length"] = "seq_len",
    };

    private readonly Dictionary<string, SafetensorsEntry> _entries;
    private readonly MappedFile _map;

    private Llama2CFile(string path, ModelConfig config, Dictionary<string, SafetensorsEntry> entries, MappedFile map) =>
        (Path, Config, _entries, _map) = (path, config, entries, map);

    public override string Path { get; }

    public ModelConfig Config { get; }

    public override IReadOnlyList<string> Names => [.. _entries.Keys];

    public override IReadOnlyDictionary<string, string> Metadata => new Dictionary<string, string>();

    /// <summary>True where a file begins as one of llama2.c and, without the version's mark, has exactly the length that its numbers ask for.</summary>
    /// <param name="head">The first bytes of the file.</param>
    public static bool Looks(ReadOnlySpan<byte> head, long length)
    {
        if (IsVersioned(head)) return true;
        return head.Length >= LegacyHeader && Read(head) is var (config, _) && !config.Problems().Any() && LegacyHeader + Bytes(config, versioned: false) == length;
    }

    /// <exception cref="InvalidDataException">The file is damaged or of a version that is not read; the message names the field.</exception>
    public static new Llama2CFile Open(string path)
    {
        SafeFileHandle handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        try
        {
            long fileLength = RandomAccess.GetLength(handle);
            Span<byte> bytes = stackalloc byte[VersionedHeader];
            ReadOnlySpan<byte> head = bytes[..RandomAccess.Read(handle, bytes, 0)];
            bool versioned = IsVersioned(head);
            if (head.Length < (versioned ? VersionedHeader : LegacyHeader)) throw new InvalidDataException($"{path}: it has {fileLength} bytes, fewer than the header of a llama2.c file; download it again.");
            if (versioned) CheckVersion(path, head);
            (ModelConfig config, int[] numbers) = Read(head);
            CheckNumbers(path, config, numbers);
            long start = versioned ? VersionedHeader : LegacyHeader, wanted = start + Bytes(config, versioned);
            if (wanted != fileLength)
                throw new InvalidDataException($"{path}: {string.Join(", ", Fields.Zip(numbers, (f, n) => $"{f} = {n}"))} take {wanted} bytes and the file has {fileLength}, so it is damaged or no llama2.c file; download it again.");
            Dictionary<string, SafetensorsEntry> entries = [];
            foreach ((string name, long[] shape) in Order(config, versioned))
            {
                long length = sizeof(float) * shape.Aggregate(1L, (a, b) => a * b);
                if (name.Length > 0) entries.Add(name, new(ScalarType.Float32, shape, start, length));
                start += length;
            }
            return new(path, config, entries, new MappedFile(handle));
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Writes version 0, which every reader of the format reads. The file is complete only when this returns.</summary>
    /// <param name="tensors">Every tensor by name, in any type.</param>
    public static void Save(string path, ModelConfig config, IReadOnlyDictionary<string, Tensor> tensors)
    {
        using FileStream stream = new(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 1 << 16);
        int[] numbers =
        [
            config.EmbeddingDimensions, config.HiddenDimensions, config.NumDecoderLayers, config.NumQHeads, config.NumKvHeads,
            config.TiedHead ? config.VocabularySize : -config.VocabularySize, config.ContextLength,
        ];
        stream.Write(MemoryMarshal.AsBytes<int>(numbers));
        int rotary = 0;
        foreach ((string name, long[] shape) in Order(config, versioned: false))
        {
            using TorchSharp.DisposeScope scope = NewDisposeScope();
            Tensor tensor = name.Length == 0 ? Angles(config, sine: rotary++ > 0) : tensors[name];
            Tensor dense = tensor.detach().to(ScalarType.Float32).cpu().contiguous();
            long bytes = dense.numel() * sizeof(float);
            using UnmanagedMemoryStream memory = new((byte*)Dispatcher.DataPointer(dense), bytes);
            memory.CopyTo(stream);
            GC.KeepAlive(dense);
        }
        stream.Flush(flushToDisk: true);
    }

    protected internal override SafetensorsEntry? Find(string name) => _entries.GetValueOrDefault(name);

    protected internal override void Read(string name, SafetensorsEntry entry, nint destination)
    {
        try
        {
            _map.Copy(entry.Offset, entry.Length, destination);
        }
        catch (EndOfStreamException e)
        {
            throw new InvalidDataException($"{Path}: tensor {name} cannot be read: {e.Message}; write it again while nobody reads it.", e);
        }
    }

    protected override void Dispose(bool disposing) => _map.Dispose();

    private static bool IsVersioned(ReadOnlySpan<byte> head) => head.Length >= sizeof(uint) && BinaryPrimitives.ReadUInt32LittleEndian(head) == Magic;

    private static void CheckVersion(string path, ReadOnlySpan<byte> head)
    {
        int version = BinaryPrimitives.ReadInt32LittleEndian(head[sizeof(uint)..]);
        if (version == 2) throw new InvalidDataException($"{path}: version = 2: its weights are quantised to 8 bits; export the model again with --version 0 or 1, which keep float32.");
        if (version != 1) throw new InvalidDataException($"{path}: version = {version}: only 0 and 1 of llama2.c are known; export the model again with one of them.");
        byte shared = head[SharedAt];
        if (shared > 1) throw new InvalidDataException($"{path}: shared_classifier = {shared}: it is 0 or 1, so the file is damaged; download it again.");
    }

    private static int SharedAt => sizeof(uint) + sizeof(int) + LegacyHeader;

    private static (ModelConfig Config, int[] Numbers) Read(ReadOnlySpan<byte> head)
    {
        bool versioned = IsVersioned(head);
        int[] numbers = new int[Numbers];
        for (int i = 0; i < Numbers; i++) numbers[i] = BinaryPrimitives.ReadInt32LittleEndian(head[(((versioned ? 2 : 0) + i) * sizeof(int))..]);
        bool negative = !versioned && numbers[5] < 0;
        ModelConfig config = new()
        {
            EmbeddingDimensions = numbers[0], HiddenSize = numbers[1], NumDecoderLayers = numbers[2], NumQHeads = numbers[3], NumKvHeads = numbers[4],
            VocabularySize = negative && numbers[5] != int.MinValue ? -numbers[5] : numbers[5], ContextLength = numbers[6],
            TiedHead = versioned ? head[SharedAt] == 1 : !negative,
            Positions = Positions.Rope, Mlp = Mlp.Swiglu, NormEpsilon = Epsilon,
        };
        return (config, numbers);
    }

    private static void CheckNumbers(string path, ModelConfig config, int[] numbers)
    {
        IEnumerable<Problem> problems = ConfigReader.Translated(config.Problems(), FieldOf);
        // 0 means something else in a config of ours.
        foreach (int i in (int[])[1, 6]) if (numbers[i] == 0) problems = problems.Append(new(Fields[i], "0", "is not positive"));
        string[] all = [.. problems.Select(p => p.ToString())];
        if (all.Length > 0) throw new InvalidDataException($"{path}: {string.Join("; ", all)}; this is no llama2.c file, or it is damaged: download it again.");
    }

    // No product here overflows: the numbers are within the limits of ModelConfig.
    private static long Bytes(ModelConfig config, bool versioned) => sizeof(float) * Kinds(config, versioned).Sum(k => k.Copies * k.Shape.Aggregate(1L, (a, b) => a * b));

    /// <summary>Every tensor in the order of the file; those without a name are passed over.</summary>
    private static IEnumerable<(string Name, long[] Shape)> Order(ModelConfig config, bool versioned)
    {
        foreach ((string name, int copies, long[] shape) in Kinds(config, versioned))
        {
            for (int i = 0; i < copies; i++)
                yield return (name.Replace("{i}", i.ToString(System.Globalization.CultureInfo.InvariantCulture), StringComparison.Ordinal), shape);
        }
    }

    private static IEnumerable<(string Name, int Copies, long[] Shape)> Kinds(ModelConfig config, bool versioned)
    {
        long d = config.EmbeddingDimensions, kv = config.KvDimensions, hidden = config.HiddenDimensions, vocabulary = config.VocabularySize;
        int layers = config.NumDecoderLayers;
        (string, int, long[]) embedding = ("tok_embeddings.weight", 1, [vocabulary, d]), final = ("norm.weight", 1, [d]);
        (string, int, long[]) norm1 = ("layers.{i}.attention_norm.weight", layers, [d]), norm2 = ("layers.{i}.ffn_norm.weight", layers, [d]);
        (string, int, long[])[] attention =
        [
            ("layers.{i}.attention.wq.weight", layers, [d, d]), ("layers.{i}.attention.wk.weight", layers, [kv, d]),
            ("layers.{i}.attention.wv.weight", layers, [kv, d]), ("layers.{i}.attention.wo.weight", layers, [d, d]),
        ];
        (string, int, long[])[] mlp =
        [
            ("layers.{i}.feed_forward.w1.weight", layers, [hidden, d]), ("layers.{i}.feed_forward.w2.weight", layers, [d, hidden]),
            ("layers.{i}.feed_forward.w3.weight", layers, [hidden, d]),
        ];
        (string, int, long[]) angles = ("", 2, [config.ContextLength, config.HeadDimensions / 2]);
        (string, int, long[])[] head = config.TiedHead ? [] : [("output.weight", 1, [vocabulary, d])];
        return versioned ? [norm1, norm2, final, embedding, .. attention, .. mlp, .. head] : [embedding, norm1, .. attention, norm2, .. mlp, final, angles, .. head];
    }

    /// <summary>cos or sin of t · theta^(-2i/D), which version 0 carries and readers compute again.</summary>
    private static Tensor Angles(ModelConfig config, bool sine)
    {
        Tensor frequencies = tensor(config.RopeTheta)
            .pow(arange(Scalars.Zero, Scalars.Of(config.HeadDimensions), Scalars.Of(2), ScalarType.Float64).div(Scalars.Of(config.HeadDimensions))).reciprocal();
        Tensor angles = outer(Scalars.Range(config.ContextLength, ScalarType.Float64), frequencies);
        return sine ? angles.sin() : angles.cos();
    }
}
