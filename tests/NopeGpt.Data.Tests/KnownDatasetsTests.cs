using System.Text;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Tests;
using static NopeGpt.Data.Tests.SourceFiles;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests;

/// <summary>The known data sets, laid out on a server as they are on the Hub.</summary>
public sealed class KnownDatasetsTests : IDisposable
{
    private readonly HubServer _server = new();
    private readonly TemporaryFolder _folder = new();

    public void Dispose()
    {
        _server.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void The_catalogue_is_whole()
    {
        Assert.Equal(8, KnownDatasets.All.Count);
        Assert.All(KnownDatasets.All, d =>
        {
            Assert.Equal(d.Kind, d.Columns.Kind);
            Assert.Equal(d, KnownDatasets.Find(d.Name.ToUpperInvariant()));
            Assert.Equal(d.Address(), HubName.Parse(d.Address().ToString()));
            Assert.True(d.DefaultSubset is null || d.Subsets.Contains(d.DefaultSubset));
        });
        Assert.Equal(14, KnownDatasets.Find("HuggingFaceTB/smoltalk")!.Subsets.Count);
        Assert.Null(KnownDatasets.Find("someone/else"));
    }

    [Theory]
    [InlineData("HuggingFaceFW/fineweb", null, "sample/10BT/000_00000.parquet")]
    [InlineData("HuggingFaceFW/fineweb", "sample-10BT", "sample/10BT/000_00000.parquet")]
    [InlineData("HuggingFaceFW/fineweb-edu", "sample-100BT", "sample/100BT/000_00000.parquet")]
    [InlineData("HuggingFaceFW/fineweb-edu", "sample-350BT", "sample/350BT/000_00000.parquet")]
    [InlineData("HuggingFaceFW/fineweb", "CC-MAIN-2024-10", "data/CC-MAIN-2024-10/000_00000.parquet")]
    [InlineData("HuggingFaceFW/fineweb", "default", "data/CC-MAIN-2013-20/000_00000.parquet,data/CC-MAIN-2024-10/000_00000.parquet")]
    public async Task Fineweb_in_samples_crawls_and_full(string name, string? subset, string expected)
    {
        string[] folders = ["sample/10BT", "sample/100BT", "sample/350BT", "data/CC-MAIN-2024-10", "data/CC-MAIN-2013-20"];
        object card = new
        {
            license = "odc-by",
            configs = new[] { ("default", "data/*/*"), ("sample-10BT", "sample/10BT/*"), ("sample-100BT", "sample/100BT/*"), ("sample-350BT", "sample/350BT/*"), ("CC-MAIN-2024-10", "data/CC-MAIN-2024-10/*") }
                .Select(c => new { config_name = c.Item1, data_files = new[] { new { split = "train", path = c.Item2 } } }),
        };
        _server.Publish(name, folders.ToDictionary(f => $"{f}/000_00000.parquet", Parquet), card);
        (HubDataset dataset, Source source) = await OpenAsync(new(name, subset));
        Assert.Equal(expected, string.Join(',', dataset.Files.Select(f => f.Path)));
        Assert.Equal(expected.Split(',').Select(p => Path.GetDirectoryName(p)), ReadTexts(source).Texts);
        // The list of all files of such a data set is long: only the folder is asked for.
        Assert.All(_server.Requests.Where(r => r.Path.Contains("/tree/", StringComparison.Ordinal)), r => Assert.Contains(subset == "default" ? "/data?" : expected.Split('/')[1], r.Path, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Openwebtext_as_parquet_or_on_the_branch_that_the_hub_makes()
    {
        _server.Publish("Skylion007/openwebtext", new Dictionary<string, byte[]> { ["plain_text/train-00000-of-00002.parquet"] = Parquet("a"), ["plain_text/train-00001-of-00002.parquet"] = Parquet("b") });
        Assert.Equal(["a", "b"], ReadTexts((await OpenAsync(new("Skylion007/openwebtext"))).Source).Texts);
        _server.Publish("old/openwebtext", new Dictionary<string, byte[]> { ["openwebtext.py"] = [1], ["subsets/urlsf_subset00.tar"] = [2] });
        _server.Publish("old/openwebtext", new Dictionary<string, byte[]> { ["plain_text/partial-train/0000.parquet"] = Parquet("c"), ["plain_text/partial-train/0001.parquet"] = Parquet("d") }, revision: "refs/convert/parquet");
        (HubDataset dataset, Source source) = await OpenAsync(new("old/openwebtext"));
        Assert.Equal(("plain_text", "partial-train"), (dataset.Subset, dataset.Split));
        Assert.Equal(["c", "d"], ReadTexts(source).Texts);
    }

    [Fact]
    public async Task Tinystories_without_the_files_beside_its_parquet()
    {
        _server.Publish("roneneldan/TinyStories", new Dictionary<string, byte[]>
        {
            ["data/train-00000-of-00002-2d5a1467fff1081b.parquet"] = Parquet("a"), ["data/train-00001-of-00002-5852b56a2bd28fd9.parquet"] = Parquet("b"),
            ["data/validation-00000-of-00001-869c898b519ad725.parquet"] = Parquet("v"), ["TinyStoriesV2-GPT4-train.txt"] = [1], ["TinyStories_all_data.tar.gz"] = [2],
        });
        Assert.Equal(["a", "b"], ReadTexts((await OpenAsync(new("roneneldan/TinyStories"))).Source).Texts);
        Assert.Equal(["v"], ReadTexts((await OpenAsync(new("roneneldan/TinyStories", Split: "validation"))).Source).Texts);
    }

    [Fact]
    public async Task Smoltalk_in_every_subset()
    {
        KnownDataset known = KnownDatasets.Find("HuggingFaceTB/smoltalk")!;
        Dictionary<string, byte[]> files = [];
        foreach (string subset in known.Subsets)
        {
            ChatRow[] rows = [new() { source = subset, messages = [new() { role = "user", content = "hi" }, new() { role = "assistant", content = subset }] }];
            files[$"data/{subset}/train-00000-of-00001.parquet"] = await File.ReadAllBytesAsync(await RowsAsync(_folder["x.parquet"], rows));
            files[$"data/{subset}/test-00000-of-00001.parquet"] = [1];
        }
        _server.Publish(known.Name, files, new
        {
            license = "apache-2.0",
            configs = known.Subsets.Select(s => new { config_name = s, data_files = new[] { new { split = "train", path = $"data/{s}/train-*" }, new { split = "test", path = $"data/{s}/test-*" } } }),
        });
        foreach (string subset in known.Subsets)
        {
            (HubDataset dataset, Source source) = await OpenAsync(new(known.Name, subset));
            Assert.Equal(known.Subsets, dataset.Subsets);
            Assert.Equal(known.Columns, ColumnMapping.Guess(source.Columns()));
            Record record = Assert.Single(Read(source.Select(known.Columns)).Records);
            Assert.Equal(subset, record["messages"].AsList![1].AsRecord!.Text("content"));
        }
        Assert.Equal("all", (await OpenAsync(new(known.Name))).Dataset.Subset);
    }

    [Fact]
    public async Task Ultrafeedback_in_pairs_and_for_fine_tuning()
    {
        string[] splits = ["train_prefs", "train_sft", "test_prefs", "test_sft", "train_gen", "test_gen"];
        _server.Publish("HuggingFaceH4/ultrafeedback_binarized", splits.ToDictionary(s => $"data/{s}-00000-of-00001.parquet", Parquet), new
        {
            license = "mit", configs = new[] { new { config_name = "default", data_files = splits.Select(s => new { split = s, path = $"data/{s}-*" }) } },
        });
        (HubDataset dataset, Source source) = await OpenAsync(new("HuggingFaceH4/ultrafeedback_binarized"));
        Assert.Equal("train_prefs", dataset.Split);
        Assert.Equal(splits, dataset.Splits);
        Assert.Equal("data", Assert.Single(ReadTexts(source).Texts)[..4]);
        Assert.Contains("train_sft", (await OpenAsync(HubName.Parse("hub:HuggingFaceH4/ultrafeedback_binarized:default:train_sft"))).Dataset.Files[0].Path, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Hh_rlhf_in_folders_of_packed_json_lines()
    {
        byte[] Pairs(string text) => Gzip(Encoding.UTF8.GetBytes($"{{\"chosen\": \"\\n\\nHuman: {text}\\n\\nAssistant: yes\", \"rejected\": \"\\n\\nHuman: {text}\\n\\nAssistant: no\"}}\n"));
        string[] folders = ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"];
        Dictionary<string, byte[]> files = folders.SelectMany(f => new[] { (f + "/train.jsonl.gz", Pairs(f)), (f + "/test.jsonl.gz", Pairs("test " + f)) }).ToDictionary(p => p.Item1, p => p.Item2);
        files["red-team-attempts/red_team_attempts.jsonl.gz"] = Gzip("[]"u8.ToArray());
        _server.Publish("Anthropic/hh-rlhf", files, new { license = "mit" });
        (HubDataset all, Source source) = await OpenAsync(new("Anthropic/hh-rlhf"));
        Assert.Equal(4, all.Files.Count);
        Assert.Equal(KnownDatasets.Find("Anthropic/hh-rlhf")!.Columns, ColumnMapping.Guess(source.Columns()));
        Assert.Equal(folders, Read(source).Records.Select(r => r.Text("chosen")!.Split(' ')[1].Split('\n')[0]));
        Assert.Equal("helpful-base/test.jsonl.gz", Assert.Single((await OpenAsync(new("Anthropic/hh-rlhf", "helpful-base", "test"))).Dataset.Files).Path);
    }

    [Fact]
    public async Task Alpaca_and_any_other_by_its_columns()
    {
        _server.Publish("tatsu-lab/alpaca", new Dictionary<string, byte[]> { ["data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"] = Parquet("a") });
        Assert.Single((await OpenAsync(new("tatsu-lab/alpaca"))).Dataset.Files);
        _server.Publish("someone/else", new Dictionary<string, byte[]> { ["data.csv"] = "id,poem\n1,hello\n"u8.ToArray(), ["dataset_infos.json"] = "{}"u8.ToArray(), ["more.csv"] = "id,poem\n2,world\n"u8.ToArray() });
        Source source = (await OpenAsync(new("someone/else"))).Source;
        Assert.Contains("\"id\", \"poem\"", Assert.Throws<InvalidDataException>(() => ColumnMapping.Guess(source.Columns(), source: source.Name)).Message, StringComparison.Ordinal);
        Assert.Equal(["hello", "world"], ReadTexts(source, "poem").Texts);
    }

    [Fact]
    public async Task Cards_with_lists_of_patterns_folders_and_defaults_are_understood()
    {
        _server.Publish("a/b", new Dictionary<string, byte[]> { ["x/1.jsonl"] = "{\"text\": \"one\"}"u8.ToArray(), ["x/2.jsonl"] = "{\"text\": \"two\"}"u8.ToArray(), ["y/train/3.jsonl"] = "{\"text\": \"three\"}"u8.ToArray(), ["y/test/4.jsonl"] = "{\"text\": \"four\"}"u8.ToArray() }, new
        {
            license = new[] { "mit", "apache-2.0" },
            configs = new object[]
            {
                new { config_name = "single", data_files = "x/1.jsonl" },
                new { config_name = "listed", @default = true, data_files = new object[] { new { split = "train", path = new[] { "x/2.jsonl", "x/1.jsonl" } } } },
                new { config_name = "folder", data_dir = "y" },
            },
        });
        Assert.Equal(["one"], ReadTexts((await OpenAsync(new("a/b", "single"))).Source).Texts);
        (HubDataset listed, Source source) = await OpenAsync(new("a/b"));
        Assert.Equal(("listed", "mit, apache-2.0"), (listed.Subset, listed.Licence));
        Assert.Equal(["one", "two"], ReadTexts(source).Texts);
        Assert.Equal(["three"], ReadTexts((await OpenAsync(new("a/b", "folder"))).Source).Texts);
        Assert.Equal(["four"], ReadTexts((await OpenAsync(new("a/b", "folder", "test"))).Source).Texts);
    }

    private byte[] Parquet(string text)
    {
        TextsAsync(_folder["y.parquet"], [text.Contains('/', StringComparison.Ordinal) || text.Length < 3 ? text : "data of " + text], 10).GetAwaiter().GetResult();
        return File.ReadAllBytes(_folder["y.parquet"]);
    }

    private async Task<(HubDataset Dataset, Source Source)> OpenAsync(HubName name)
    {
        using HubClient client = new(_server.Options(_folder["cache"]));
        HubDataset dataset = await HubDataset.OpenAsync(client, name);
        Source source = dataset.ToSource();
        // Gets the files while the client is there.
        foreach (SourceFile file in source.Files) await file.PathAsync(default);
        return (dataset, source);
    }
}
