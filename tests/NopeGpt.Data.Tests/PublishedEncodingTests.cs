using System.IO.Compression;
using System.Reflection;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class PublishedEncodingTests(ITestOutputHelper output) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [NeedsTheory(Needs.SharedData)]
    [InlineData("r50k_base", 50257)]
    [InlineData("p50k_base", 50281)]
    [InlineData("cl100k_base", 100277)]
    [InlineData("o200k_base", 200019)]
    public void Ids_are_those_of_the_golden_encodings(string name, int size)
    {
        Tokenizer tokenizer = Tokenizer.Load(RankFile(name));
        Assert.Equal(size, tokenizer.VocabularySize);
        int count = 0;
        foreach (string line in File.ReadLines(Needs.Data("tokenizers/golden-encodings.jsonl")))
        {
            using JsonDocument golden = JsonDocument.Parse(line);
            string text = golden.RootElement.GetProperty("text").GetString()!;
            int[] ids = [.. golden.RootElement.GetProperty(name.Replace("_base", "", StringComparison.Ordinal)).EnumerateArray().Select(id => id.GetInt32())];
            Assert.Equal(ids, tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(ids));
            count++;
        }
        Assert.Equal(138, count);
    }

    private string RankFile(string name)
    {
        if (name is "r50k_base" or "p50k_base") return Needs.Data($"tokenizers/{name}.tiktoken");
        string assembly = name == "cl100k_base" ? "Microsoft.ML.Tokenizers.Data.Cl100kBase" : "Microsoft.ML.Tokenizers.Data.O200kBase";
        Assembly data = Assembly.Load(assembly);
        using DeflateStream stream = new(data.GetManifestResourceStream(data.GetManifestResourceNames().Single(resource => resource.Contains(name, StringComparison.Ordinal)))!, CompressionMode.Decompress);
        using StreamReader lines = new(stream);
        // The package has one line with the count, then the tokens without their ranks, which are the numbers of the lines.
        StringBuilder file = new();
        output.WriteLine(lines.ReadLine()!);
        for (int rank = 0; lines.ReadLine() is { } token; rank++) file.Append(token).Append(' ').Append(rank).Append('\n');
        string path = _folder[$"{name}.tiktoken"];
        File.WriteAllText(path, file.ToString());
        output.WriteLine($"{new FileInfo(path).Length}");
        return path;
    }
}
