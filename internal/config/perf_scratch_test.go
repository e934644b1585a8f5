package config_test
import ("testing";"strings";"time";"fmt"
"github.com/leatdata/leat/internal/config")
func TestScratch(t *testing.T){
 n:=1<<20-100
 in:=map[string]string{
 "open[": strings.Repeat("[",n), "open{": strings.Repeat("{",n), "{a:": strings.Repeat("{a: ",n/4),
 "dash": strings.Repeat("- ",n/2), "q": strings.Repeat("? ",n/2), "qn": strings.Repeat("?\n",n/2),
 "anchors": strings.Repeat("&a\n",n/3), "tags": strings.Repeat("!a\n",n/3), "colon": strings.Repeat(": ",n/2), "colon2": strings.Repeat(":",n),
 "a": strings.Repeat("a",n), "aspace": strings.Repeat("a ",n/2), "anl": strings.Repeat("a\n",n/2), "nl": strings.Repeat("\n",n), "sp": strings.Repeat(" ",n),
 "comment": strings.Repeat("#",n), "comments": strings.Repeat("#\n",n/2), "sq": "a: '"+strings.Repeat("a\n",n/2), "dq": "a: \""+strings.Repeat("\\n",n/2),"dq2": "a: \""+strings.Repeat("a\n ",n/3)+"\"",
 "lit": "a: |\n"+strings.Repeat(" a\n",n/3), "fold": "a: >\n"+strings.Repeat(" a\n",n/3), "list": "dump:\n  tables:\n"+strings.Repeat("  - a.b\n",n/9), "flow": "dump: {tables: ["+strings.Repeat("a,",n/2)+"]}",
 "keys": func()string{var b strings.Builder; for i:=0;b.Len()<n-20;i++{fmt.Fprintf(&b,"k%d: 1\n",i)};return b.String()}(),
 "dup": strings.Repeat("a: 1\n",n/5), "docs": strings.Repeat("---\n",n/4), "alias": strings.Repeat("*a\n",n/3), "pct": strings.Repeat("%\n",n/2),"pct2": strings.Repeat("%A b\n",n/5),
 "indent": func()string{var b strings.Builder; for i:=0;b.Len()<n-3000;i++{b.WriteString(strings.Repeat(" ",i)+"a:\n")};return b.String()}(),
 "cr": strings.Repeat("\r",n), "crlf": strings.Repeat("a: b\r\n",n/6), "bs": "\""+strings.Repeat("\\",n), "bar": strings.Repeat("|\n",n/2), "flowc": "["+strings.Repeat("#\n",n/2), "flowa": "["+strings.Repeat("a\n",n/2),"lt": strings.Repeat("<<: ",n/4),
 "flowm": "{"+strings.Repeat("a: 1,",n/5), "nullk": strings.Repeat("~\n",n/2), "uni": strings.Repeat("é: ü\n",n/8),
 }
 for k,s:=range in { t0:=time.Now(); _,err:=config.Parse("x",[]byte(s),config.LoadOptions{Env:func(string)(string,bool){return "",false}}); d:=time.Since(t0); if d>300*time.Millisecond||err==nil { e:=fmt.Sprint(err); if len(e)>100 {e=e[:100]}; fmt.Println(k,d,e)}}
}
