using NopeGpt.Model.Storage.Layouts;

namespace NopeGpt.Model.Storage;

/// <summary>Finds out which program wrote an adapter's folder, and reads it.</summary>
internal static class AdapterFolder
{
    private static readonly (string Json, string Tensors, Func<string, Decoder, Adapter> Load)[] Forms =
    [
        (AdapterFile.JsonName, AdapterFile.TensorsName, AdapterFile.Load),
        (ReferenceAdapter.JsonName, ReferenceAdapter.TensorsName, ReferenceAdapter.Load),
        (PeftAdapter.JsonName, PeftAdapter.TensorsName, PeftAdapter.Load),
    ];

    public static Adapter Load(string path, Decoder model)
    {
        bool isFile = File.Exists(path);
        if (isFile && PickleFiles.HasName(path)) throw PickleFiles.Refusal(path, ReferenceAdapter.TensorsName);
        string folder = isFile ? Path.GetDirectoryName(Path.GetFullPath(path))! : path;
        if (!Directory.Exists(folder)) throw new InvalidDataException($"{path}: there is no such adapter; choose a folder with {Known()}.");
        foreach ((string json, string tensors, Func<string, Decoder, Adapter> load) in Forms)
        {
            bool meant = isFile ? Path.GetFileName(path) is var name && (name == json || name == tensors) : File.Exists(Path.Combine(folder, json));
            if (meant) return load(folder, model);
        }
        throw new InvalidDataException($"{path}: is no adapter; choose a folder with {Known()}.");
    }

    public static SafetensorsFile Open(string path)
    {
        try
        {
            return SafetensorsFile.Open(path);
        }
        catch (FileNotFoundException) when (File.Exists(Path.ChangeExtension(path, ".bin")))
        {
            throw PickleFiles.Refusal(Path.ChangeExtension(path, ".bin"), Path.GetFileName(path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: the adapter's tensors cannot be read ({e.Message.TrimEnd('.')}); copy the adapter again.", e);
        }
    }

    private static string Known() => string.Join(", or ", Forms.Select(f => $"{f.Json} and {f.Tensors}"));
}
