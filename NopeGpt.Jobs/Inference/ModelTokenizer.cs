using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Inference;

/// <summary>The tokenizer that travels with a model from one folder to another.</summary>
internal static class ModelTokenizer
{
    private const string EncodingPattern = "*.tiktoken";

    /// <summary>The tokenizer that lies with a model: tokenizer.json in its folder (or GPT-2's two files) or, for a file of llama2.c, tokN.bin (of N tokens) or tokenizer.bin beside it.</summary>
    /// <returns>Null where there is none.</returns>
    public static string? Beside(string model, int vocabularySize)
    {
        string folder = Directory.Exists(model) ? model : Path.GetDirectoryName(Path.GetFullPath(model))!;
        string[] names = [Tokenizer.FileName, $"tok{vocabularySize}.bin", "tokenizer.bin"];
        if (File.Exists(model) && Path.GetExtension(model).Equals(".bin", StringComparison.OrdinalIgnoreCase)) names = [.. names[1..], names[0]];
        return names.Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists) ?? Tokenizer.FileIn(folder);
    }

    /// <param name="places">Where the file of a named encoding may lie.</param>
    /// <returns>The tokenizer; null where there is none, or where it only names an encoding whose file is not here.</returns>
    public static Tokenizer? TryLoad(string? file, IReadOnlyList<string> places)
    {
        try { return file is null ? null : Tokenizer.Load(file, places); }
        catch (FileNotFoundException) { return null; }
    }

    /// <summary>Writes the tokenizer into a model's folder. One that only names a published encoding takes the encoding's file along.</summary>
    /// <param name="file">The tokenizer; null writes nothing and says so.</param>
    /// <param name="places">Where the file of a named encoding may lie.</param>
    /// <param name="tell">Gets a sentence where something of it is not there; null writes it to the error stream.</param>
    /// <exception cref="InvalidDataException">It is damaged, or of another model.</exception>
    public static void Put(string? file, string folder, int vocabularySize, IReadOnlyList<string> places, Action<string>? tell = null)
    {
        tell ??= Console.Error.WriteLine;
        if (file is null)
        {
            tell($"no tokenizer lies beside the model, so the new folder has none: {Tokenizer.MissingCure}");
            return;
        }
        try
        {
            Tokenizer.Load(file, places).ForModel(vocabularySize, file).Save(folder);
        }
        catch (FileNotFoundException e) when (File.Exists(file))
        {
            tell(e.Message);
            File.Copy(file, Path.Combine(folder, Tokenizer.FileName));
        }
        IEnumerable<string> near = places.Prepend(Path.GetDirectoryName(Path.GetFullPath(file))!)
            .SelectMany(place => File.Exists(place) ? [Path.GetFullPath(place)] : Directory.Exists(place) ? Directory.EnumerateFiles(place, EncodingPattern) : []);
        foreach (string encoding in near.DistinctBy(Path.GetFileName))
        {
            if (encoding != Path.GetFullPath(file) && !Named(file, encoding)) continue;
            File.Copy(encoding, Path.Combine(folder, Path.GetFileName(encoding)), overwrite: true);
        }
    }

    private static bool Named(string file, string encoding) =>
        new FileInfo(file).Length < 4096 && File.ReadAllText(file).Contains($"\"{Path.GetFileNameWithoutExtension(encoding)}\"", StringComparison.Ordinal);
}
