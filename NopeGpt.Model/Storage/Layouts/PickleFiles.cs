using System.Buffers.Binary;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>Files that Python's pickle has written. Reading one runs whatever code it holds, so they are told by their first bytes and refused.</summary>
internal static class PickleFiles
{
    private const uint ZipEntry = 0x04034b50, ZipEnd = 0x06054b50;
    private const byte Protocol = 0x80, NewestProtocol = 5;

    /// <summary>Names under which PyTorch's files go.</summary>
    public static bool HasName(string path) => Path.GetExtension(path).ToLowerInvariant() is ".pt" or ".pth" or ".ckpt" or ".pkl" or ".pickle" or ".bin";

    /// <summary>True where a file begins as a zip archive (PyTorch from 1.6) or as a pickle (before). The header of a safetensors file, a length, must be ruled out first.</summary>
    /// <param name="head">At least the first three bytes, where the file has so many.</param>
    public static bool Looks(ReadOnlySpan<byte> head)
    {
        if (head.Length >= sizeof(uint) && BinaryPrimitives.ReadUInt32LittleEndian(head) is ZipEntry or ZipEnd) return true;
        // The protocol's number, then an instruction, which is never 0.
        return head.Length > 2 && head[0] == Protocol && head[1] is > 0 and <= NewestProtocol && head[2] != 0;
    }

    /// <param name="name">What the converted file must be called, in the same folder.</param>
    public static InvalidDataException Refusal(string path, string name = TensorSource.SingleName)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        const string program =
            "import sys, torch; from safetensors.torch import save_file; w = torch.load(sys.argv[1], map_location='cpu', weights_only=True); " +
            "w = next((w[k] for k in ('state_dict', 'model_state_dict', 'model') if isinstance(w.get(k), dict)), w); " +
            "save_file({k: v.clone().contiguous() for k, v in w.items() if torch.is_tensor(v)}, sys.argv[2], {'format': 'pt'})";
        return new($"{path}: this is a Python pickle, which can run code when it is read, so it is not opened. Convert it, on a machine where you trust it, with " +
            $"python -c \"{program}\" {Quoted(path)} {Quoted(Path.Combine(folder, name))} and load its folder again.");
    }

    private static string Quoted(string path) => $"'{path.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}
