using System.Buffers.Binary;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>Finds and opens the files of a model: the weights and the config beside them.</summary>
internal static class ModelFiles
{
    private const string Shapes = $"a folder with {CheckpointFiles.ConfigName} and {TensorSource.SingleName}, a .safetensors file with its config beside it, or a llama2.c .bin file";
    private const int HeadLength = 256;

    // Ours and those of others that hold no model.
    private static readonly string[] NoModels = [CheckpointFiles.OptimizerName, "adapter.safetensors", "adapter_model.safetensors"];

    /// <summary>Opens the weights of a folder or file.</summary>
    /// <exception cref="InvalidDataException">There are none, several, or damaged ones, or a Python pickle.</exception>
    public static TensorSource Open(string path)
    {
        if (!Directory.Exists(path) && !File.Exists(path)) throw new InvalidDataException($"{path}: there is no such model folder or file; choose {Shapes}.");
        try
        {
            return OpenFile(Directory.Exists(path) ? Weights(path) : path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: its weights cannot be read ({e.Message}); restore the files or use another model.", e);
        }
    }

    /// <summary>The config that lies beside the weights: config.json, or OpenAI's hparams.json; null where neither does.</summary>
    public static ConfigReader? Config(TensorSource source)
    {
        if (source is Llama2CFile) return null;
        string folder = Path.GetDirectoryName(Path.GetFullPath(source.Path))!;
        return ((string[])[CheckpointFiles.ConfigName, "hparams.json"]).Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists) is { } path ? new ConfigReader(path) : null;
    }

    private static string Weights(string folder)
    {
        foreach (string name in (string[])[TensorSource.SingleName, TensorSource.IndexName])
            if (File.Exists(Path.Combine(folder, name))) return Path.Combine(folder, name);
        string[] all = [.. Directory.EnumerateFiles(folder).Order(StringComparer.Ordinal)];
        string[] indices = [.. all.Where(f => f.EndsWith(".safetensors.index.json", StringComparison.Ordinal))];
        string[] tensors = [.. all.Where(f => f.EndsWith(".safetensors", StringComparison.Ordinal) && !NoModels.Contains(Path.GetFileName(f)))];
        string[] models = indices.Length > 0 ? indices : [.. tensors, .. all.Where(f => f.EndsWith(".bin", StringComparison.OrdinalIgnoreCase) && IsLlama2C(f))];
        if (models.Length == 1) return models[0];
        if (models.Length > 1)
            throw new InvalidDataException($"{folder}: it has several files with weights ({string.Join(", ", models.Select(Path.GetFileName))}) and none is named {TensorSource.SingleName} or {TensorSource.IndexName}; choose one of the files, or add the index that joins them.");
        // To be refused by what it is. A folder of a training run has pickles of optimizers too.
        return all.Where(PickleFiles.HasName).OrderByDescending(f => Path.GetFileName(f).Contains("model", StringComparison.OrdinalIgnoreCase)).FirstOrDefault()
            ?? throw new InvalidDataException($"{folder}: no weights are there; choose {Shapes}.");
    }

    private static TensorSource OpenFile(string path)
    {
        if (path.EndsWith(".json", StringComparison.OrdinalIgnoreCase)) return TensorSource.Open(path);
        ReadOnlySpan<byte> head = Head(path, out long length);
        if (IsSafetensors(head, length)) return SafetensorsFile.Open(path);
        if (Llama2CFile.Looks(head, length)) return Llama2CFile.Open(path);
        if (PickleFiles.Looks(head)) throw PickleFiles.Refusal(path);
        return Path.GetExtension(path).ToLowerInvariant() switch
        {
            // Neither by its content: the error of the reader that its name asks for.
            ".bin" => Llama2CFile.Open(path),
            ".safetensors" => SafetensorsFile.Open(path),
            _ when PickleFiles.HasName(path) => throw PickleFiles.Refusal(path),
            _ => throw new InvalidDataException($"{path}: this is no file of a model; choose {Shapes}."),
        };
    }

    private static bool IsLlama2C(string path) => Head(path, out long length) is var head && Llama2CFile.Looks(head, length);

    private static bool IsSafetensors(ReadOnlySpan<byte> head, long length) =>
        head.Length > sizeof(ulong) && head[sizeof(ulong)] == (byte)'{' && BinaryPrimitives.ReadUInt64LittleEndian(head) <= (ulong)length;

    private static byte[] Head(string path, out long length)
    {
        using FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        length = stream.Length;
        byte[] bytes = new byte[HeadLength];
        return bytes[..stream.ReadAtLeast(bytes, HeadLength, throwOnEndOfStream: false)];
    }
}
