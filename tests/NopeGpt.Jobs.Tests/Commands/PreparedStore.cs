using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>A store with a data set of stories and one of conversations.</summary>
public sealed class PreparedStore : IDisposable
{
    public const string Stories = "stories", Talks = "talks";

    private readonly TemporaryFolder _folder = new();

    public PreparedStore()
    {
        Store = new Store(_folder["root"]);
        Prepare(Stories, new PrepareConfig { CorpusBytes = 40_000, VocabularySize = 400 });
        File.WriteAllLines(TalksSource, StoryGenerator.Stories(2).Take(90).Select((story, i) => JsonSerializer.Serialize(new
        {
            messages = new object[] { new { role = "user", content = $"Tell story {i}" }, new { role = "assistant", content = story[..(100 + i)] }, new { role = "user", content = "Thanks" } },
        })));
        Prepare(Talks, new PrepareConfig { Source = TalksSource, VocabularySize = 400 });
    }

    internal Store Store { get; }

    internal string TalksSource => _folder["talks.jsonl"];

    /// <summary>A path of a test's own.</summary>
    internal string this[string relative] => _folder[relative];

    public void Dispose() => _folder.Dispose();

    /// <summary>A copy of a data set under another name, to be damaged.</summary>
    internal string Copy(string name)
    {
        string copy = Store.DatasetFolder($"copy-{Guid.NewGuid():n}");
        Directory.CreateDirectory(copy);
        foreach (string file in Directory.EnumerateFiles(Store.DatasetFolder(name))) File.Copy(file, Path.Combine(copy, Path.GetFileName(file)));
        return copy;
    }

    internal void Prepare(string name, PrepareConfig recipe)
    {
        string folder = Store.DatasetFolder(name);
        Directory.CreateDirectory(folder);
        DatasetMaker maker = new(Store, recipe with { Dataset = name }, seed: 5, new MakerReports(_ => { }, warning => Assert.Fail(warning), _ => { }), TimeProvider.System);
        (maker.Make(folder, CancellationToken.None).Info with { RunId = "a-run" }).Write(folder);
        DatasetMaker.Finish(folder);
    }
}
