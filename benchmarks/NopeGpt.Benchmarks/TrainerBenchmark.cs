using System.Diagnostics;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Benchmarks;

/// <summary>BytePairTrainer beside Hugging Face's trainer (npm's tokenizers, in ../HuggingFace): 50 MB of prose to 30,000 tokens, in alternation, each in a
/// process of its own; and whether the merges are the same.</summary>
internal static class TrainerBenchmark
{
    /// <summary>As the first argument: the process that only trains.</summary>
    public const string Child = "train-tokenizer";

    private const long Bytes = 50_000_000;
    private const int Rounds = 3;

    public static void Run()
    {
        if (Prose.DataFolder is not { } data || Prose.Above("benchmarks/HuggingFace/node_modules/tokenizers") is not { } package)
        {
            Console.WriteLine("trainer: it needs the shared data (NOPEGPT_TEST_DATA) and `npm install` in benchmarks/HuggingFace");
            return;
        }
        string script = Path.GetFullPath(Path.Combine(package, "../../train.js"));
        string folder = Directory.CreateTempSubdirectory("nopegpt-benchmark-").FullName;
        try
        {
            string text = Path.Combine(folder, "prose.txt"), theirs = Path.Combine(folder, "theirs.json"), ours = Path.Combine(folder, "ours");
            using (FileStream file = File.Create(text))
                foreach (byte[] document in Prose.Documents(data, Bytes)) file.Write([.. document, (byte)'\n']);
            for (int round = 0; round < Rounds; round++)
            {
                Figures hugging = Start("node", script, text, theirs);
                string[] merges = Merges(theirs, out int alphabet, out int size);
                // Theirs has only the bytes that occur and no special token: as many merges for both.
                Figures own = Start(Environment.ProcessPath!, Child, text, ours, $"{size - alphabet + 257}");
                Console.WriteLine($"Hugging Face {hugging}; ours {own}: {own.Seconds / hugging.Seconds:0.00} of the time, {own.Cpu / hugging.Cpu:0.00} of the processor time; "
                    + $"{merges.Length} merges, {(merges.SequenceEqual(Merges(Path.Combine(ours, Tokenizer.FileName), out _, out _)) ? "all the same" : "DIFFERENT")}");
            }
        }
        finally { Directory.Delete(folder, recursive: true); }
    }

    /// <summary>Trains and prints its figures.</summary>
    public static void RunChild(string text, string folder, int vocabularySize)
    {
        long start = Stopwatch.GetTimestamp();
        Tokenizer tokenizer = BytePairTrainer.Train(Lines(text), new BytePairOptions { VocabularySize = vocabularySize, Gpt2Words = true });
        Figures figures = new(Stopwatch.GetElapsedTime(start).TotalSeconds, Environment.CpuUsage.TotalTime.TotalSeconds, Process.GetCurrentProcess().PeakWorkingSet64 / 1048576.0);
        tokenizer.Save(folder);
        Console.WriteLine(JsonSerializer.Serialize(figures, JsonSerializerOptions.Web));
    }

    /// <summary>Lines with their ends, which is what theirs takes for a document.</summary>
    private static IEnumerable<string> Lines(string path)
    {
        using StreamReader reader = new(path);
        StringBuilder rest = new();
        char[] buffer = new char[1 << 16];
        for (int length; (length = reader.Read(buffer)) > 0;)
        {
            int start = 0;
            for (int end; (end = Array.IndexOf(buffer, '\n', start, length - start)) >= 0; start = end + 1)
            {
                yield return rest.Append(buffer, start, end + 1 - start).ToString();
                rest.Clear();
            }
            rest.Append(buffer, start, length - start);
        }
        if (rest.Length > 0) yield return rest.ToString();
    }

    private static string[] Merges(string file, out int alphabet, out int size)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(file));
        JsonElement model = document.RootElement.GetProperty("model");
        string[] tokens = [.. model.GetProperty("vocab").EnumerateObject().Select(token => token.Name)];
        (alphabet, size) = (tokens.Count(token => token.Length == 1), tokens.Length);
        return [.. model.GetProperty("merges").EnumerateArray().Select(merge => merge.ValueKind == JsonValueKind.Array ? $"{merge[0].GetString()} {merge[1].GetString()}" : merge.GetString()!)];
    }

    private static Figures Start(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        string[] lines = process.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
        process.WaitForExit();
        if (process.ExitCode != 0) throw new InvalidOperationException($"{program} ended with {process.ExitCode}");
        return JsonSerializer.Deserialize<Figures>(lines[^1], JsonSerializerOptions.Web)!;
    }

    private sealed record Figures(double Seconds, double Cpu, double Megabytes)
    {
        public override string ToString() => $"{Seconds:0.0} s, {Cpu:0.0} s of processor time, {Megabytes:0} MB at most";
    }
}
