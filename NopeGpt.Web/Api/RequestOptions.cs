using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Web.Api;

/// <summary>The one option of a command: in the address (?size=tiny) or in a JSON body ({"size": "tiny"}); the body may be empty.</summary>
/// <param name="Text">As it stands there; empty where it is not given.</param>
internal sealed record RequestOptions(string Text)
{
    /// <summary>Reads it. One of the two results is null.</summary>
    /// <param name="known">Its name and whether it is a text or (True) a yes or no.</param>
    public static async Task<(RequestOptions? Options, IResult? Refusal)> ReadAsync(HttpRequest request, (string Name, JsonValueKind Kind) known, CancellationToken cancel)
    {
        string inAddress = request.Query[known.Name].ToString();
        bool hasBody = request.ContentLength > 0 || request.Headers.TransferEncoding.Count > 0;
        if (!hasBody) return (new RequestOptions(inAddress), null);
        (JsonDocument? document, IResult? refusal) = await JsonBody.ReadAsync(request, cancel);
        if (document is null) return (null, refusal);
        using (document)
        {
            if (document.RootElement.ValueKind != JsonValueKind.Object) return (null, ApiProblems.Bad("body", "", $"send a JSON object with {known.Name}, or no body"));
            List<Problem> problems = [];
            string text = inAddress;
            foreach (JsonProperty field in document.RootElement.EnumerateObject())
            {
                string value = field.Value.GetRawText() is { Length: <= 80 } all ? all : field.Value.GetRawText()[..77] + "...";
                bool isYesOrNo = field.Value.ValueKind is JsonValueKind.True or JsonValueKind.False;
                if (field.Name != known.Name)
                    problems.Add(new Problem(field.Name, value, Settings.Nearest(field.Name, [known.Name]) is { } near ? $"there is no such field; did you mean {near}?" : $"there is no such field; known is {known.Name}"));
                else if (known.Kind == JsonValueKind.String ? field.Value.ValueKind != JsonValueKind.String : !isYesOrNo)
                    problems.Add(new Problem(field.Name, value, known.Kind == JsonValueKind.String ? "must be a text" : "must be true or false"));
                else if (inAddress.Length > 0)
                    problems.Add(new Problem(field.Name, value, "stands in the address as well: give it once"));
                else
                    text = isYesOrNo ? field.Value.GetRawText() : field.Value.GetString()!;
            }
            return problems.Count > 0 ? (null, ApiProblems.Bad(problems)) : (new RequestOptions(text), null);
        }
    }
}
